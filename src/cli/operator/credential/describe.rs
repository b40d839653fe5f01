//! A credential with where it comes from and who depends on it, as it is shown.

use serde_json::{Value, json};

use crate::cli::owner_reference;
use crate::cli::render::{Field, Resource};
use crate::proto;

/// How many generations and dependents people are shown; programs get all.
const SHOWN: usize = 8;

impl Resource for proto::DescribeCredentialResponse {
    const COLUMNS: &'static [&'static str] = <proto::Credential as Resource>::COLUMNS;

    fn fields(&self) -> Vec<(&'static str, Field)> {
        let mut fields = self.credential.as_ref().map(Resource::fields).unwrap_or_default();
        fields.push(("cause", Field::Text(self.cause.clone())));
        fields.push(("grant_expire_time", Field::Time(self.grant_expire_time)));
        fields.push(("generations", generations(&self.generations)));
        fields.push(("dependents", dependents(&self.dependents)));
        fields.push(("dependents_truncated", Field::Flag(self.dependents_truncated)));
        fields
    }

    fn handle(&self) -> String {
        self.credential
            .as_ref()
            .map(|credential| credential.id.clone())
            .unwrap_or_default()
    }

    fn references(&mut self) -> Vec<&mut String> {
        let credential = self.credential.as_mut();
        credential
            .map(|credential| owner_reference(&mut credential.owner))
            .unwrap_or_default()
    }
}

/// The newest ones, and how many there are besides.
fn told<T>(all: &[T], one: impl Fn(&T) -> String) -> String {
    let mut told: Vec<_> = all.iter().rev().take(SHOWN).map(one).collect();
    if all.len() > SHOWN {
        told.push(format!("{} more", all.len() - SHOWN));
    }
    told.join(", ")
}

fn generations(all: &[proto::GrantGeneration]) -> Field {
    let text = told(all, |link| {
        let fingerprint = &link.refresh_token_fingerprint;
        format!("{} {} {fingerprint}", link.generation, link.origin)
    });
    let value: Vec<Value> = all
        .iter()
        .map(|link| {
            json!({
                "generation": link.generation,
                "create_time": link.create_time.map(|time| time.to_string()),
                "origin": link.origin,
                "refresh_token_fingerprint": link.refresh_token_fingerprint,
                "access_token_fingerprint": link.access_token_fingerprint,
            })
        })
        .collect();
    Field::Both(text, value.into())
}

fn dependents(all: &[proto::CredentialDependent]) -> Field {
    let text = told(all, |held| format!("{} by {}", held.lease, held.holder));
    let value: Vec<Value> = all
        .iter()
        .map(|held| {
            json!({
                "lease": held.lease,
                "holder": held.holder,
                "task": held.task,
                "member": held.member,
                "generation": held.generation,
                "expire_time": held.expire_time.map(|time| time.to_string()),
            })
        })
        .collect();
    Field::Both(text, value.into())
}
