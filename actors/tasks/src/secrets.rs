//! Secrets by reference, resolved on the node when a workspace is opened. Values go to the worker's memory and nowhere else.

use helix_protocol::{Code, Failure, SecretRef};

/// Checks the form of a reference, without looking the value up.
pub(crate) fn check(secret: &SecretRef) -> Result<(), Failure> {
    let known =
        secret.source.strip_prefix("env:").or_else(|| secret.source.strip_prefix("file:/")).is_some_and(|rest| !rest.is_empty());
    if known && !secret.variable.is_empty() && !secret.variable.contains('=') {
        return Ok(());
    }
    let message = format!("secret {:?} has the source {:?}, which cannot be read", secret.variable, secret.source);
    Err(Failure::new(Code::InvalidRequest, message).hint("write `env:NAME` or `file:/absolute/path`"))
}

/// Looks the values up.
pub(crate) async fn resolve(secrets: &[SecretRef]) -> Result<Vec<(String, String)>, Failure> {
    let mut values = Vec::with_capacity(secrets.len());
    for secret in secrets {
        check(secret)?;
        let value = match secret.source.split_once(':') {
            Some(("env", name)) => std::env::var(name).map_err(|_| {
                Failure::new(
                    Code::InvalidRequest,
                    format!("secret {:?} needs the variable {name}, which the node does not have", secret.variable),
                )
                .hint("set it where the node is started: `helix down`, then `helix up` with it in the environment")
            })?,
            Some((_, path)) => {
                let text = tokio::fs::read_to_string(path).await.map_err(|error| {
                    Failure::new(Code::InvalidRequest, format!("secret {:?} cannot be read from {path}: {error}", secret.variable))
                        .hint("the file must be readable by the node")
                })?;
                // A file written by an editor or by echo ends with a line break that is not part of the secret.
                text.strip_suffix('\n').map_or(text.clone(), str::to_owned)
            }
            None => unreachable!("checked above: a source has a colon"),
        };
        values.push((secret.variable.clone(), value));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(source: &str) -> SecretRef {
        SecretRef { variable: "TOKEN".to_owned(), source: source.to_owned() }
    }

    #[tokio::test]
    async fn a_secret_is_read_from_the_environment_or_a_file_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        std::fs::write(&file, "s3cret\n").expect("written");
        let values = resolve(&[secret(&format!("file:{}", file.display()))]).await;
        assert_eq!(values, Ok(vec![("TOKEN".to_owned(), "s3cret".to_owned())]));
        let path = std::env::var("PATH").expect("every test has a PATH");
        assert_eq!(resolve(&[secret("env:PATH")]).await, Ok(vec![("TOKEN".to_owned(), path)]));
        let missing = resolve(&[secret("env:HELIX_NO_SUCH_VARIABLE")]).await.expect_err("it is not set");
        assert_eq!(missing.message, "secret \"TOKEN\" needs the variable HELIX_NO_SUCH_VARIABLE, which the node does not have");
        assert_eq!(check(&secret("vault:x")).expect_err("unknown").code, Code::InvalidRequest);
    }
}
