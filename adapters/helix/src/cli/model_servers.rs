//! How a model server is doing, in words.

use helix_messages::ProviderView;
use helix_ports::Availability;

/// What a model server answered, on one line.
pub(super) fn told(provider: &ProviderView) -> String {
    let health = &provider.health;
    let word = match health.availability {
        Availability::Available => "it answers",
        Availability::Degraded => "it answered with errors lately",
        Availability::Unavailable => "it does not answer",
        Availability::Unknown => "it did not say how it is doing",
    };
    let time = health.latency_ms.map_or_else(String::new, |ms| format!(" within {ms} ms"));
    let reason = if health.message.is_empty() { String::new() } else { format!(": {}", health.message) };
    let models = match provider.models.len() {
        1 => "1 model".to_owned(),
        count => format!("{count} models"),
    };
    format!("{} at {}: {models}, {word}{time}{reason}", provider.name, provider.base_url)
}

#[cfg(test)]
mod tests {
    use helix_ports::ProviderHealth;

    use super::*;

    #[test]
    fn a_model_server_is_told_in_words() {
        let told = |availability, latency_ms, message: &str| {
            let health = ProviderHealth { availability, latency_ms, message: message.to_owned() };
            let (name, base_url) = ("local".to_owned(), "http://127.0.0.1:1/v1".to_owned());
            told(&ProviderView { name, base_url, health, models: Vec::new(), circuits: Vec::new() })
        };
        let at = "local at http://127.0.0.1:1/v1: 0 models, ";
        assert_eq!(
            told(Availability::Unavailable, None, "connection refused"),
            format!("{at}it does not answer: connection refused")
        );
        assert_eq!(told(Availability::Available, Some(12), ""), format!("{at}it answers within 12 ms"));
    }
}
