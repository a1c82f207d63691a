//! A failure as HTTP says it: RFC 9457.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use helix_protocol::{Code, Failure};

use crate::api::ProblemDocument;

/// A failure on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    failure: Failure,
    status: StatusCode,
}

impl Problem {
    /// The failure under another status than its code's.
    pub fn with_status(failure: Failure, status: StatusCode) -> Self {
        Self { failure, status }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let status = status_of(failure.code);
        Self { failure, status }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let document = ProblemDocument {
            kind: format!("urn:helix:failure:{}", self.failure.code.as_str()),
            title: self.failure.code.as_str().replace('_', " "),
            status: self.status.as_u16(),
            detail: self.failure.message.clone(),
            code: self.failure.code,
            hint: self.failure.hint.clone(),
        };
        let body = serde_json::to_vec(&document).expect("a problem is plain data");
        let mut response = HttpResponse::build(self.status);
        response.insert_header((CONTENT_TYPE, "application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((RETRY_AFTER, "1"));
        }
        response.body(body)
    }
}

fn status_of(code: Code) -> StatusCode {
    match code {
        Code::NotFound | Code::FileNotFound => StatusCode::NOT_FOUND,
        Code::Forbidden | Code::PathEscapes => StatusCode::FORBIDDEN,
        Code::AmbiguousId | Code::InvalidState | Code::AnotherWorker | Code::StaleOwner | Code::NodeRunning | Code::Cancelled => {
            StatusCode::CONFLICT
        }
        Code::InvalidRequest | Code::InvalidConfig => StatusCode::BAD_REQUEST,
        Code::IdempotencyConflict | Code::DependencyCycle | Code::NotARepository | Code::GitFailed => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Code::HostKeyUnknown | Code::HostKeyChanged | Code::SshAuthFailed => StatusCode::UNPROCESSABLE_ENTITY,
        Code::FileTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::BudgetExhausted => StatusCode::PAYMENT_REQUIRED,
        Code::Overloaded | Code::ShuttingDown | Code::DatabaseUnavailable | Code::NoWorker | Code::NoModelAnswers => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Code::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Code::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        Code::WorkerUnreachable | Code::WorkerLost | Code::InstallFailed | Code::ProtocolError | Code::VersionMismatch => {
            StatusCode::BAD_GATEWAY
        }
        Code::ModelUnavailable | Code::ModelRefused | Code::ModelFailed | Code::ModelGarbage => StatusCode::BAD_GATEWAY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// No route, or not with this method.
pub(crate) fn no_route(path: &str) -> Problem {
    Failure::new(Code::NotFound, format!("there is no {path} here")).hint("everything lies under /api/v1").into()
}
