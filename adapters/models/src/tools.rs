//! What every format does about tools: forcing a call where the model cannot be forced, and tools that only one provider has.

use helix_protocol::{Extra, ModelRequest, ToolChoice, ToolSchema, WireFormat, extra_of};
use serde_json::{Value, json};

use crate::format::Turn;

/// Gemini's name for what it signs its thinking with, on whatever part it stands.
pub(crate) const THOUGHT_SIGNATURE: &str = "thoughtSignature";

/// Whether the model can be made to keep to a choice of tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forcing {
    /// It can.
    Possible,
    /// It cannot, or not while it thinks.
    Refused,
}

impl Forcing {
    /// By the capabilities of the turn's model.
    pub(crate) fn of(turn: &Turn<'_>) -> Self {
        if turn.capabilities.forced_tools { Self::Possible } else { Self::Refused }
    }
}

/// The choice as it is sent, and what the model is asked in words where it cannot be forced.
pub(crate) fn sent_choice(request: &ModelRequest, forcing: Forcing) -> (&ToolChoice, Option<String>) {
    match (&request.tool_choice, forcing) {
        (ToolChoice::Any, Forcing::Refused) => {
            (&ToolChoice::Auto, Some("Answer this turn by calling at least one of the tools.".to_owned()))
        }
        (ToolChoice::Named(name), Forcing::Refused) => {
            (&ToolChoice::Auto, Some(format!("Answer this turn by calling the tool `{name}`, and no other tool.")))
        }
        (choice, _) => (choice, None),
    }
}

/// Whose own kind of tool this is, such as a provider's web search: it has no parameters, and its provider's words instead.
pub(crate) fn provider_of(tool: &ToolSchema) -> Option<WireFormat> {
    tool.extra.as_deref().filter(|_| tool.parameters.is_null()).map(|extra| extra.format)
}

/// The tools that a format can carry, in their order.
pub(crate) fn carried(tools: &[ToolSchema], format: WireFormat) -> impl Iterator<Item = &ToolSchema> {
    tools.iter().filter(move |tool| provider_of(tool).is_none_or(|whose| whose == format))
}

/// Gemini's signature of a call, for clients of other formats to give back: they carry fields they do not know, and Gemini refuses
/// a call that lost its signature. The fields are those of Gemini's own OpenAI-compatible service.
pub(crate) fn signature_of(extra: &Option<Box<Extra>>) -> Option<Value> {
    let signature = extra_of(extra, WireFormat::Gemini)?.get(THOUGHT_SIGNATURE)?;
    Some(json!({"google": {"thought_signature": signature}}))
}

/// The reverse.
pub(crate) fn signed_by_gemini(content: &Value) -> Option<Box<Extra>> {
    let signature = content.pointer("/google/thought_signature").filter(|signature| signature.is_string())?;
    Extra::field(WireFormat::Gemini, THOUGHT_SIGNATURE, signature.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_cannot_be_forced_is_asked() {
        let request = ModelRequest { tool_choice: ToolChoice::Named("read".to_owned()), ..ModelRequest::default() };
        let (choice, asked) = sent_choice(&request, Forcing::Refused);
        assert_eq!(choice, &ToolChoice::Auto);
        assert!(asked.is_some_and(|asked| asked.contains("`read`")));
        assert_eq!(sent_choice(&request, Forcing::Possible), (&request.tool_choice, None));
    }
}
