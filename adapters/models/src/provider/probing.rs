//! What a server is asked about itself: whether it is well, how busy it is, and how long a request its models take.

use std::time::Duration;

use helix_ports::ProviderError;
use reqwest::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::by_model::ByModel;
use super::{HEALTH, HttpProvider};
use crate::connection::whole;
use crate::format::{Measured, Probe};

/// A server that did not say a model's size is asked again after so long: it may have been pulled since, or was in trouble.
const ASKED_AGAIN: Duration = Duration::from_secs(30);

/// What became of asking for the size of a model.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// The server said it.
    Told(Measured),
    /// It did not, when it was asked last.
    InVain(Instant),
}

impl HttpProvider {
    /// Asks the server for the size of `model` where it is one that knows it: until it says it, and after an
    /// answer without it not at once.
    pub(super) async fn measure(&self, model: &str) {
        let is_known = self.measured.get(model).is_some_and(|asked| match asked {
            Asked::Told(_) => true,
            Asked::InVain(at) => at.elapsed() < ASKED_AGAIN,
        });
        if is_known || !ByModel::<Asked>::takes(model) {
            return;
        }
        let Some(probe) = self.format.size_probe(model) else { return };
        match tokio::time::timeout(HEALTH, self.probe(&probe)).await {
            Ok(Ok((200..=299, body))) => {
                let size = self.format.decode_size(model, &body);
                self.measured.put(model, size.map_or_else(|| Asked::InVain(Instant::now()), Asked::Told));
            }
            // Not now, or not with this key: the call itself will say so, and the next one asks again.
            Ok(Ok((401 | 403 | 429 | 503, _))) => {}
            // It cannot be asked now: the call itself will say so, and the next one asks again.
            Ok(Err(_)) => {}
            // It knows no such model, does not tell, or not in time.
            Ok(Ok(_)) | Err(_) => self.measured.put(model, Asked::InVain(Instant::now())),
        }
    }

    /// The size of `model`, where the server said it.
    pub(super) fn told_size(&self, model: &str) -> Option<Measured> {
        match self.measured.get(model)? {
            Asked::Told(size) => Some(size),
            Asked::InVain(_) => None,
        }
    }

    /// Status and answer of a probe, whatever they are; null where the answer is no JSON.
    async fn probe(&self, probe: &Probe) -> Result<(u16, Value), ProviderError> {
        let access = self.access().await?;
        let call = match &probe.body {
            Some(body) => self.post(&access, &probe.path).json(body),
            None => self.request(Method::GET, &access, &probe.path),
        };
        let response = self.send(call).await?;
        let status = response.status().as_u16();
        let body = whole(response, self.settings.idle_timeout, self.settings.answer_bytes).await;
        let body = body.map_err(|error| self.body_fault(error))?;
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// A sign of life, with what it says for people; the error says why the server cannot be used.
    pub(super) async fn probe_health(&self, probe: &Probe) -> Result<String, String> {
        match tokio::time::timeout(HEALTH, self.probe(probe)).await {
            Ok(Ok((status, body))) => {
                Ok([self.format.decode_health(status, &body)?, self.load().await].join(" ").trim().to_owned())
            }
            Ok(Err(error)) => Err(error.failure().message.clone()),
            Err(_) => Err(self.faults().silent("gave no sign of life", HEALTH).failure().message.clone()),
        }
    }

    /// How busy the server is; nothing where it does not tell.
    async fn load(&self) -> String {
        let Some(probe) = self.format.load_probe() else { return String::new() };
        match tokio::time::timeout(HEALTH, self.probe(&probe)).await {
            Ok(Ok((200, body))) => self.format.decode_load(&body).unwrap_or_default(),
            _ => String::new(),
        }
    }
}
