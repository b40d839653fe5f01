//! placeholder until next step
use super::error::Failure;
/// x
#[derive(clap::Args, Debug)]
pub struct DemoArgs {}
/// x
pub async fn run(_: DemoArgs) -> Result<(), Failure> {
    Ok(())
}
