//! What Gemini refuses as harmful.

use serde::{Deserialize, Serialize};

/// A kind of harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HarmCategory {
    /// Harassment.
    Harassment,
    /// Hate speech.
    Hate,
    /// Sexually explicit content.
    Sexual,
    /// Dangerous content.
    Dangerous,
    /// Attempts to talk the model out of its rules.
    Jailbreak,
}

impl HarmCategory {
    /// As the service names it.
    pub fn wire(self) -> &'static str {
        match self {
            Self::Harassment => "HARM_CATEGORY_HARASSMENT",
            Self::Hate => "HARM_CATEGORY_HATE_SPEECH",
            Self::Sexual => "HARM_CATEGORY_SEXUALLY_EXPLICIT",
            Self::Dangerous => "HARM_CATEGORY_DANGEROUS_CONTENT",
            Self::Jailbreak => "HARM_CATEGORY_JAILBREAK",
        }
    }
}

/// From which likelihood on something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SafetyThreshold {
    /// The filter is off.
    Off,
    /// It judges, and nothing is refused.
    None,
    /// What is likely.
    High,
    /// What may be.
    Medium,
    /// What is unlikely, too.
    Low,
}

impl SafetyThreshold {
    /// As the service names it.
    pub fn wire(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::None => "BLOCK_NONE",
            Self::High => "BLOCK_ONLY_HIGH",
            Self::Medium => "BLOCK_MEDIUM_AND_ABOVE",
            Self::Low => "BLOCK_LOW_AND_ABOVE",
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Config, ModelsConfig};

    /// The section as a file writes it.
    fn read(text: &str) -> Result<ModelsConfig, helix_protocol::Failure> {
        Config::parse(&format!("llm:\n  providers:\n    {text}\n"), "helix.yaml").map(|config| config.llm)
    }

    #[test]
    fn thresholds_are_read_in_words_and_only_a_provider_that_has_filters_takes_them() {
        let read_back = read("g: {kind: gemini, safety: {harassment: none, jailbreak: off, hate: low}}").expect("right");
        let safety: Vec<_> = read_back.providers["g"].safety.iter().map(|(kind, from)| (kind.wire(), from.wire())).collect();
        let expected = [
            ("HARM_CATEGORY_HARASSMENT", "BLOCK_NONE"),
            ("HARM_CATEGORY_HATE_SPEECH", "BLOCK_LOW_AND_ABOVE"),
            ("HARM_CATEGORY_JAILBREAK", "OFF"),
        ];
        assert_eq!(safety, expected);
        let elsewhere = read("a: {kind: anthropic, safety: {hate: low}}").expect_err("it has none");
        assert_eq!(elsewhere.message, "llm.providers.a.safety is set");
        assert!(read("g: {kind: gemini, safety: {hate: lots}}").is_err());
    }
}
