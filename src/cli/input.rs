//! What a person or a pipe gives: secrets without echo, and yes or no before something is destroyed.
//!
//! A secret never comes by an argument, where other users of the machine could read it.

use std::io::{BufRead, IsTerminal, Read, Write, stderr, stdin};
use std::path::Path;

use zeroize::Zeroizing;

use super::error::{Failure, plain};
use super::files;
use crate::domain::secret::Secret;

/// The longest secret taken, in bytes.
const MAX_SECRET: usize = 64 * 1024;

/// The secret in a file that only its owner can read; white space around it is dropped.
pub fn secret_in_file<K>(path: &Path) -> Result<Secret<K>, Failure> {
    let bytes = files::read_private(path)?;
    trimmed(&bytes, &path.display().to_string())
}

/// The secret from `file` (`-`: standard input), otherwise from standard input where that is no terminal,
/// otherwise asked for without echo. `what` names it, such as `API key`.
pub fn secret<K>(file: Option<&Path>, what: &str) -> Result<Secret<K>, Failure> {
    match file {
        Some(path) if path != Path::new("-") => secret_in_file(path),
        None if stdin().is_terminal() => prompt(what),
        _ => piped(what),
    }
}

/// Whether a secret without a file is asked for at the terminal.
pub fn is_asked(file: Option<&Path>) -> bool {
    file.is_none() && stdin().is_terminal()
}

/// Asks for something that is no secret.
pub fn line(what: &str) -> Result<String, Failure> {
    let failed = |error| Failure::config(format!("cannot ask for the {what}: {error}"));
    let (mut prompt, mut answer) = (stderr(), String::new());
    write!(prompt, "{what}: ")
        .and_then(|()| prompt.flush())
        .and_then(|()| stdin().lock().take(1024).read_line(&mut answer))
        .map_err(failed)?;
    match answer.trim() {
        "" => Err(Failure::usage(format!("the {what} is empty"))),
        answer => Ok(answer.to_owned()),
    }
}

/// Asks for a secret without echo; an empty answer is none.
pub fn optional_secret<K>(what: &str) -> Result<Option<Secret<K>>, Failure> {
    let text = asked(what)?;
    match text.trim_ascii().is_empty() {
        true => Ok(None),
        false => trimmed(text.as_bytes(), what).map(Some),
    }
}

fn piped<K>(what: &str) -> Result<Secret<K>, Failure> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    stdin()
        .lock()
        .take(MAX_SECRET as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::config(format!("cannot read the {what} from standard input: {error}")))?;
    trimmed(&bytes, &format!("the {what} on standard input"))
}

fn prompt<K>(what: &str) -> Result<Secret<K>, Failure> {
    trimmed(asked(what)?.as_bytes(), &format!("the {what}"))
}

fn asked(what: &str) -> Result<Zeroizing<String>, Failure> {
    rpassword::prompt_password(format!("{what} (not shown): "))
        .map(Zeroizing::new)
        .map_err(|error| Failure::config(format!("cannot ask for the {what}: {error}")))
}

fn trimmed<K>(bytes: &[u8], origin: &str) -> Result<Secret<K>, Failure> {
    let bytes = bytes.trim_ascii();
    if bytes.is_empty() {
        return Err(Failure::usage(format!("{origin} is empty")));
    }
    if bytes.len() > MAX_SECRET {
        return Err(Failure::usage(format!(
            "{origin} is longer than {MAX_SECRET} bytes"
        )));
    }
    if std::str::from_utf8(bytes).is_err() {
        return Err(Failure::usage(format!("{origin} is not UTF-8 text")));
    }
    Ok(Secret::new(bytes.to_vec()))
}

/// Says what will happen and asks whether it shall. With `yes` it is not asked; where nobody can answer it is
/// refused.
pub fn confirm(consequence: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !stdin().is_terminal() {
        return Err(Failure::usage(format!("not done without asking: {consequence}"))
            .because("standard input is no terminal, so that nobody can be asked")
            .remedy("Add --yes."));
    }
    let mut prompt = stderr();
    let mut answer = String::new();
    write!(prompt, "{} Go on? [y/N] ", plain(consequence))
        .and_then(|()| prompt.flush())
        .and_then(|()| stdin().lock().take(64).read_line(&mut answer))
        .map_err(|error| Failure::usage(format!("cannot ask: {error}")))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::usage("not done")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::secret::{ApiKey, Exposure};

    #[test]
    fn white_space_around_a_secret_is_dropped() {
        let secret: Secret<ApiKey> = trimmed(b" sk-1 2\r\n", "x").unwrap();
        assert_eq!(secret.expose_str(Exposure::Inspect), Some("sk-1 2"));
    }

    #[test]
    fn no_secret_at_all_and_endless_ones_are_refused() {
        assert!(trimmed::<ApiKey>(b" \n", "x").is_err());
        assert!(trimmed::<ApiKey>(&vec![b'a'; MAX_SECRET + 1], "x").is_err());
        assert!(trimmed::<ApiKey>(&[0xff], "x").is_err());
    }
}
