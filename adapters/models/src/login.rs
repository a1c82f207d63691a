//! Logging in: for providers that give tokens in place of keys.
//!
//! [`DeviceLogin`] is the flow of RFC 8628: a person types a short code on a page, and the program is given a token, with a
//! proof key (PKCE, RFC 7636) where the service knows it. [`TokenStore`] keeps tokens encrypted at rest. [`OauthCredentials`]
//! refreshes one before it expires; [`CopilotCredentials`] exchanges a GitHub token for short-lived ones. Both use a new login from
//! the next call on, and go on without the disk where a new token cannot be saved, which is done again. They count a token's
//! age with the monotonic clock where this process was given it, so that a wall clock set wrong costs nothing; whatever they
//! miss, one refusal with 401 mends.

mod copilot;
mod device;
mod lease;
mod oauth;
mod store;

pub use copilot::CopilotCredentials;
pub use device::{DeviceEndpoint, DeviceLogin, Invitation, Polled};
pub use oauth::OauthCredentials;
pub use store::{Stamp, StoredToken, TokenStore};
