//! Whether a prompt fits its model, found out before it is sent.
//!
//! A server of one's own may cut silently what it does not take, and a prompt of millions of tokens is minutes on its way before it
//! is refused. Most prompts are far below the limit by an upper estimate, and nothing is asked about them.

use helix_ports::ProviderError;

use super::HttpProvider;
use crate::estimate::{fewest_tokens, prompt_bytes};
use crate::format::Turn;
use crate::request_tokens;

/// English has about so many in a token, code fewer.
const USUAL_BYTES: u64 = 4;

impl HttpProvider {
    /// Refuses with `context_overflow` what the model does not take. Where its size is known (the server told it, it is
    /// configured for the provider, or the table has it), what is too long by the fewest tokens that it can be goes nowhere. What
    /// may be too long is counted by the provider, where it counts; a server that would cut it is believed to by a likely
    /// estimate: a prompt too many that is shortened costs less than one that lost its beginning. Anything else is sent.
    pub(super) async fn fits(&self, turn: &Turn<'_>) -> Result<(), ProviderError> {
        let takes = turn.capabilities.context_tokens;
        if request_tokens(turn.request, turn.capabilities.image_tokens) <= takes {
            return Ok(());
        }
        let too_long = |tokens: u64| Err(self.faults().too_long(turn.model, tokens, takes));
        let told = self.settings.context_tokens > 0 || self.told_size(turn.model).is_some();
        let fewest = fewest_tokens(turn.request);
        if fewest > takes && (told || self.facts(Some(turn.model)).knows_size) {
            return too_long(fewest);
        }
        let tokens = match self.format.encode_count(turn) {
            Some(encoded) => self.count(encoded, turn.request).await.ok(),
            None => (told && self.format.cuts_silently()).then(|| prompt_bytes(turn.request) / USUAL_BYTES),
        };
        match tokens.filter(|tokens| *tokens > takes) {
            Some(tokens) => too_long(tokens),
            None => Ok(()),
        }
    }
}
