//! Paths and answers of the protocol.

mod body;
mod keys;
mod requests;

use crate::service::Service;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use fhec_protocol::{BINARY, Code, KEYS_PATH, LIMITS_PATH, PLAN_PATH, REQUESTS_PATH, Refusal};
use std::sync::Arc;

type Shared = State<Arc<Service>>;

/// The answers to all paths.
pub(crate) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route(PLAN_PATH, get(plan))
        .route(LIMITS_PATH, get(limits))
        .route(&format!("{KEYS_PATH}/{{key}}"), get(keys::status).put(keys::upload))
        .route(REQUESTS_PATH, post(requests::submit))
        .route(&format!("{REQUESTS_PATH}/{{key}}/{{request}}/{{round}}"), get(requests::ask))
        .route(&format!("{REQUESTS_PATH}/{{key}}/{{request}}"), delete(requests::forget))
        .fallback(nothing)
        .method_not_allowed_fallback(nothing)
        .with_state(service)
}

async fn health(State(service): Shared) -> Response<Body> {
    match service.is_ending() {
        false => "ok\n".into_response(),
        true => (StatusCode::SERVICE_UNAVAILABLE, "ending\n").into_response(),
    }
}

async fn metrics(State(service): Shared) -> Response<Body> {
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    ([kind], service.metrics.render(&service.gauges(), service.keys.loads())).into_response()
}

async fn plan(State(service): Shared) -> Response<Body> {
    binary(Body::from(service.head.clone()))
}

async fn limits(State(service): Shared) -> Response<Body> {
    json(StatusCode::OK, &service.limits)
}

async fn nothing(State(service): Shared) -> Response<Body> {
    let names = [PLAN_PATH, LIMITS_PATH, KEYS_PATH, REQUESTS_PATH].join(", ");
    refusal(&service, Refusal { code: Code::Malformed, message: format!("there are {names}, /health and /metrics") })
}

fn binary(body: Body) -> Response<Body> {
    ([(header::CONTENT_TYPE, BINARY)], body).into_response()
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    // The types of the protocol have no map with keys that are no strings, which is all that can fail.
    let text = serde_json::to_string(value).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// The answer to whatever is refused.
fn refusal(service: &Service, refusal: Refusal) -> Response<Body> {
    service.metrics.refused(refusal.code);
    let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, &refusal);
    if matches!(refusal.code, Code::Busy | Code::Limited | Code::Ending) {
        response.headers_mut().insert(header::RETRY_AFTER, service.retry_after().into());
    }
    response
}
