//! What a server is asked about itself: whether it is well, how busy it is, and how long a request its models take.

use helix_ports::ProviderError;
use reqwest::Method;
use serde_json::Value;

use super::{HEALTH, HttpProvider};
use crate::connection::whole;
use crate::format::Probe;

impl HttpProvider {
    /// Asks the server for the size of `model`, once, where it is one that knows it.
    pub(super) async fn measure(&self, model: &str) {
        if self.measured.read().contains_key(model) {
            return;
        }
        let Some(probe) = self.format.size_probe(model) else { return };
        match tokio::time::timeout(HEALTH, self.probe(&probe)).await {
            Ok(Ok((200..=299, body))) => {
                let size = self.format.decode_size(model, &body);
                self.measured.write().insert(model.to_owned(), size);
            }
            // Not now, or not with this key: the call itself will say so, and the next one asks again.
            Ok(Ok((401 | 403 | 429 | 503, _))) => {}
            // It knows no such model, or does not tell.
            Ok(Ok(_)) => drop(self.measured.write().insert(model.to_owned(), None)),
            // It cannot be asked now: the call itself will say so, and the next one asks again.
            Ok(Err(_)) | Err(_) => {}
        }
    }

    /// Status and answer of a probe, whatever they are; null where the answer is no JSON.
    async fn probe(&self, probe: &Probe) -> Result<(u16, Value), ProviderError> {
        let access = self.access().await?;
        let call = match &probe.body {
            Some(body) => self.post(&access, &probe.path).json(body),
            None => self.request(Method::GET, &access, &probe.path),
        };
        let response = call.send().await.map_err(|error| self.faults().transport(error))?;
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
