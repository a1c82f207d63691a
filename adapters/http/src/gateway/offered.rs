//! What can be asked for: the models, in the format of whoever asks, and the addresses that are served.

use actix_web::{HttpRequest, HttpResponse, web};
use helix_protocol::{Code, Failure, WireFormat};
use serde_json::Value;

use super::answer::refusal;
use super::keys::Refusal;
use super::requests::{admit, unescaped, unspoken};
use super::{Access, Gateway};

/// What is served, for whoever asks for something else.
const SERVED: &str = "there are POST /v1/chat/completions, /v1/responses, /v1/responses/input_tokens, /v1/messages, \
    /v1/messages/count_tokens, /v1beta/models/MODEL:generateContent, :streamGenerateContent and :countTokens, /api/chat, /api/generate \
    and /api/show; and GET /v1/models, /v1/models/MODEL, /v1beta/models, /api/tags and /api/version";

/// The format of whoever asks, which its headers and the address tell.
fn wire(request: &HttpRequest) -> WireFormat {
    let has = |name: &str| request.headers().contains_key(name);
    let path = request.path();
    match () {
        () if path.starts_with("/api/") => WireFormat::Ollama,
        () if has("anthropic-version") || path.starts_with("/v1/messages") => WireFormat::Anthropic,
        () if has("x-goog-api-key") || path.starts_with("/v1beta") => WireFormat::Gemini,
        () => WireFormat::OpenaiChat,
    }
}

/// GET /v1/models, /v1beta/models and /api/tags.
pub(crate) async fn models(gateway: web::Data<Gateway>, access: web::Data<Access>, request: HttpRequest) -> HttpResponse {
    let wire = wire(&request);
    let Some(format) = gateway.format(wire).cloned() else { return unspoken(wire) };
    match offered(&gateway, **access, &request).await {
        Ok(names) => HttpResponse::Ok().json(format.models(&names)),
        Err(refused) => refusal(Some(&*format), &refused),
    }
}

/// GET /v1/models/MODEL: one of the list, also without the name of its provider.
pub(crate) async fn model(
    gateway: web::Data<Gateway>,
    access: web::Data<Access>,
    request: HttpRequest,
    called: web::Path<String>,
) -> HttpResponse {
    let wire = wire(&request);
    let Some(format) = gateway.format(wire).cloned() else { return unspoken(wire) };
    let name = unescaped(&called);
    let is_it = |offered: &String| *offered == name || offered.split_once('/').is_some_and(|(_, model)| model == name);
    let found = offered(&gateway, **access, &request).await.and_then(|names| match names.iter().any(is_it) {
        true => Ok(first(&format.models(std::slice::from_ref(&name)))),
        false => {
            let failure = Failure::new(Code::ModelUnavailable, format!("there is no model {name:?}"));
            Err(Refusal::new(404, failure.hint("GET /v1/models lists those that there are")))
        }
    });
    match found {
        Ok(model) => HttpResponse::Ok().json(model),
        Err(refused) => refusal(Some(&*format), &refused),
    }
}

/// The only entry of a list, which every format has under one of two names.
fn first(listed: &Value) -> Value {
    ["data", "models"].iter().find_map(|field| listed.get(*field)?.get(0).cloned()).unwrap_or_default()
}

/// The models that the caller may ask for.
async fn offered(gateway: &Gateway, access: Access, request: &HttpRequest) -> Result<Vec<String>, Refusal> {
    let caller = admit(gateway, access, request).await?;
    let models = gateway.models.clone();
    let offered = gateway.run(async move { models.offered().await }).await.map_err(|failure| Refusal::new(503, failure))?;
    let may_ask = |model: &String| caller.as_ref().is_none_or(|caller| caller.may_ask(model).is_ok());
    Ok(offered.into_iter().filter(may_ask).collect())
}

/// True of addresses under which only formats of models are served.
pub(crate) fn is_of_a_format(path: &str) -> bool {
    ["/v1/", "/v1beta/"].iter().any(|under| path.starts_with(under))
}

/// What is not served, or not with this method.
pub(crate) async fn nowhere(gateway: web::Data<Gateway>, request: HttpRequest) -> HttpResponse {
    let failure = Failure::new(Code::NotFound, format!("there is no {} {} here", request.method(), request.path())).hint(SERVED);
    refusal(gateway.format(wire(&request)).map(|format| &**format), &Refusal::new(404, failure))
}
