//! Errors as AWS clients read them: status, `x-amzn-errortype`, and a JSON body with a message.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// An error of the API.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    resource: Option<(String, String)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_arn: Option<&'a str>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            resource: None,
        }
    }

    /// 400: what was asked cannot be understood, or is not done here.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequestException", message)
    }

    /// A field AWS knows and this server does not do: refused by name, never ignored.
    pub(crate) fn unsupported(field: &str) -> Self {
        Self::invalid(format!("{field} is not supported yet"))
    }

    /// 404.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", message)
    }

    /// 403, with a code that says why.
    pub(crate) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// 500. What happened stands in the log, not in the answer.
    pub(crate) fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed within the server");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalFailureException",
            "The server could not do this; its log says why.",
        )
    }

    /// 503: too much is under way.
    pub(crate) fn unavailable(message: &str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailableException",
            message,
        )
    }

    /// Names the resource that is in the way (`ResourceAlreadyExistsException`).
    pub(crate) fn about(mut self, id: impl Into<String>, arn: impl Into<String>) -> Self {
        self.resource = Some((id.into(), arn.into()));
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (resource_id, resource_arn) = match &self.resource {
            Some((id, arn)) => (Some(id.as_str()), Some(arn.as_str())),
            None => (None, None),
        };
        let body = ErrorBody {
            message: &self.message,
            resource_id,
            resource_arn,
        };
        // A struct of strings always serialises.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert("x-amzn-errortype", HeaderValue::from_static(self.code));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::ApiError;
    use axum::response::IntoResponse;
    use http_body_util::BodyExt;

    #[tokio::test(flavor = "current_thread")]
    async fn an_error_has_the_shape_aws_clients_read() {
        let error = ApiError::new(
            http::StatusCode::CONFLICT,
            "ResourceAlreadyExistsException",
            "policy p exists already",
        )
        .about("p", "arn:aws:iot:r:0:policy/p");
        let response = error.into_response();
        assert_eq!(response.status(), 409);
        assert_eq!(
            response.headers()["x-amzn-errortype"],
            "ResourceAlreadyExistsException"
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&body).unwrap(),
            serde_json::json!({
                "message": "policy p exists already",
                "resourceId": "p",
                "resourceArn": "arn:aws:iot:r:0:policy/p",
            })
        );
    }
}
