//! The HTTP door: `POST /api/v1/profiles`.

#![expect(unused_qualifications, reason = "in what utoipa's attribute expands to")]

use axum::body::{Body, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::{Extension, Json, Router, routing};
use bytes::{Bytes, BytesMut};
use cambium_model::profile::ProfileId;
use cambium_model::selector::parse_labels;
use cambium_model::time;
use cambium_runtime::error::ApiError;
use cambium_runtime::tenancy::{Access, AuthError, Identity};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, OpenApi, ToSchema};

use crate::error::Error;
use crate::service::{Admitted, Handle, Push};

/// The distributor's routes. Requests must carry an [`Identity`] in their extensions.
pub fn router(handle: Handle) -> Router {
    Router::new().route("/api/v1/profiles", routing::post(push)).with_state(handle)
}

/// The routes as OpenAPI describes them.
pub fn openapi() -> utoipa::openapi::OpenApi {
    #[derive(OpenApi)]
    #[openapi(paths(push))]
    struct Routes;

    Routes::openapi()
}

/// What a push says in its query string.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Parameters {
    /// The series: `{service_name="api",pod="a"}`. None at all if left out.
    #[serde(default)]
    labels: String,
    /// The profile's name, such as `process_cpu`; if left out, the well-known one for its sample types.
    name: Option<String>,
    /// When it was collected, RFC 3339 or seconds since 1970; if left out, the profile's own time, or now if it has
    /// none.
    timestamp: Option<String>,
    /// 32 hexadecimal digits that stay the same when a push is retried; if left out, a hash of the request.
    profile_id: Option<String>,
}

/// The profile is durable.
#[derive(Debug, Serialize, ToSchema)]
struct Answer {
    /// `success`.
    status: &'static str,
    /// What was taken in.
    data: Accepted,
}

/// What was taken in.
#[derive(Debug, Serialize, ToSchema)]
struct Accepted {
    /// Profiles in the body: 1.
    profiles: u64,
    /// Samples in it, as the sender counts them.
    samples: u64,
    /// True if this was a retry of a push that had been taken in before, and added nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

/// Takes one pprof in, gzip, zstd or plain, and answers when it is durable.
#[utoipa::path(
    post,
    path = "/api/v1/profiles",
    params(Parameters),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "durable", body = Answer),
        (status = 400, description = "malformed: the message says what and where"),
        (status = 413, description = "too large"),
        (status = 422, description = "past a limit, or too old or too new"),
        (status = 429, description = "over a rate or the series limit; see Retry-After"),
        (status = 503, description = "not durable; retry after Retry-After"),
    )
)]
async fn push(
    State(handle): State<Handle>,
    identity: Option<Extension<Identity>>,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Json<Answer>, ApiError> {
    let Extension(identity) = identity.ok_or(AuthError::NoTenant)?;
    let tenant = identity.require(Access::Write)?;
    let mut admitted = handle.admit(tenant).await?;
    let read = read(&mut admitted, query, body).await;
    let push = read.map_err(|error| admitted.refuse(error))?;
    let receipt = admitted.push(push).await?;
    let data = Accepted { profiles: 1, samples: receipt.samples, duplicate: receipt.duplicate };
    Ok(Json(Answer { status: "success", data }))
}

async fn read(
    admitted: &mut Admitted,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Push, Error> {
    let Query(parameters) = query.map_err(|rejection| Error::Query(rejection.body_text()))?;
    let labels = parse_labels(&parameters.labels)?;
    let time_ns = parameters.timestamp.as_deref().map(time::parse).transpose()?;
    let id = parameters.profile_id.as_deref().map(profile_id).transpose()?;
    let body = read_body(admitted, body).await?;
    Ok(Push { body, labels, name: parameters.name, time_ns, id, addresses_relative: false })
}

/// Reads the body as it comes, never past the tenant's bound. Room is taken for what has arrived, not for what is
/// announced: announcing costs a sender nothing.
async fn read_body(admitted: &mut Admitted, body: Body) -> Result<Bytes, Error> {
    if let Some(length) = body.size_hint().exact() {
        admitted.expect(length)?;
    }
    let mut chunks = body.into_data_stream();
    let Some(first) = chunks.next().await else { return Ok(Bytes::new()) };
    let first = first.map_err(Error::BodyCut)?;
    admitted.hold(first.len() as u64)?;
    let Some(second) = chunks.next().await else { return Ok(first) };

    let mut whole = BytesMut::from(first);
    let mut next = Some(second);
    while let Some(chunk) = next {
        let chunk = chunk.map_err(Error::BodyCut)?;
        admitted.hold((whole.len() + chunk.len()) as u64)?;
        whole.extend_from_slice(&chunk);
        next = chunks.next().await;
    }
    Ok(whole.freeze())
}

fn profile_id(digits: &str) -> Result<ProfileId, Error> {
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::ProfileId);
    }
    let id = u128::from_str_radix(digits, 16).expect("32 hexadecimal digits are a u128");
    Ok(ProfileId(id.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_names_every_parameter() {
        let description = serde_json::to_value(openapi()).unwrap();
        let parameters = &description["paths"]["/api/v1/profiles"]["post"]["parameters"];
        let names: Vec<&str> = parameters
            .as_array()
            .unwrap()
            .iter()
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["labels", "name", "timestamp", "profile_id"]);
    }
}
