//! The secrets of the gateway's keys: who makes a key and who is shown one must agree on what is kept of it.

use helix_protocol::GatewayKey;

/// A new key's secret, which is told once, and its hash, which is kept.
pub fn new_key_secret() -> (String, String) {
    let secret: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
    let secret = format!("{}{secret}", GatewayKey::PREFIX);
    let hash = key_secret_hash(&secret);
    (secret, hash)
}

/// What is kept of a secret.
pub fn key_secret_hash(secret: &str) -> String {
    blake3::hash(secret.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_of_chance_and_kept_by_its_hash() {
        let ((one, hash_of_one), (other, _)) = (new_key_secret(), new_key_secret());
        assert_ne!(one, other);
        assert_eq!((one.len(), hash_of_one), (GatewayKey::PREFIX.len() + 64, key_secret_hash(&one)));
    }
}
