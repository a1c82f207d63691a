//! Whether a prompt fits its model, found out before it is sent.
//!
//! A server of one's own may cut silently what it does not take, and a prompt of millions of tokens is minutes on its way before it
//! is refused. Most prompts are far below the limit by an upper estimate, and nothing is asked about them.

use helix_ports::ProviderError;

use super::HttpProvider;
use crate::estimate::prompt_bytes;
use crate::format::Turn;
use crate::request_tokens;

/// No usual vocabulary has more bytes of a long text in a token.
const MOST_BYTES: u64 = 6;
/// English has about so many, code fewer.
const USUAL_BYTES: u64 = 4;

impl HttpProvider {
    /// Refuses with `context_overflow` what the model does not take: by the provider's own count where it counts, else by an
    /// estimate, which only a size that the server itself told, or that is configured for the provider, is held against. It is a
    /// lower one where the server would refuse what is too long, and a likely one where it would cut it: a prompt too many that is
    /// shortened costs less than one that lost its beginning. What cannot be counted now is sent.
    pub(super) async fn fits(&self, turn: &Turn<'_>) -> Result<(), ProviderError> {
        let takes = turn.capabilities.context_tokens;
        if request_tokens(turn.request) <= takes {
            return Ok(());
        }
        let told = self.settings.context_tokens > 0 || self.told_size(turn.model).is_some();
        let tokens = match self.format.encode_count(turn) {
            Some(encoded) => self.count(encoded, turn.request).await.ok(),
            None => told.then(|| {
                let bytes = if self.format.cuts_silently() { USUAL_BYTES } else { MOST_BYTES };
                prompt_bytes(turn.request) / bytes
            }),
        };
        match tokens.filter(|tokens| *tokens > takes) {
            Some(tokens) => Err(self.faults().too_long(turn.model, tokens, takes)),
            None => Ok(()),
        }
    }
}
