//! The errors of the rooms below, and this room's own, under AWS's names.

use std::io::ErrorKind;

use ca::{CaError, ForeignError};
use fleet::{FleetError, Kind};
use http::StatusCode;
use shadow::ShadowError;
use store::StoreError;

use crate::ControlError;
use crate::api_error::ApiError;

impl From<ShadowError> for ApiError {
    fn from(error: ShadowError) -> Self {
        match error {
            ShadowError::Store(error) => error.into(),
            ShadowError::Fleet(error) => error.into(),
            ShadowError::Thread(_) => Self::internal(&error),
        }
    }
}

impl From<FleetError> for ApiError {
    fn from(error: FleetError) -> Self {
        let message = error.to_string();
        match error {
            FleetError::NotFound { .. } => Self::not_found(message),
            FleetError::AlreadyExists { .. } => Self::new(
                StatusCode::CONFLICT,
                "ResourceAlreadyExistsException",
                message,
            ),
            FleetError::VersionConflict { .. } => {
                Self::new(StatusCode::CONFLICT, "VersionConflictException", message)
            }
            // AWS says DeleteConflict of certificates and policies, and of things and groups that
            // the request is invalid.
            FleetError::DeleteConflict {
                kind: Kind::Thing | Kind::Group | Kind::ThingType,
                ..
            } => Self::invalid(message),
            FleetError::DeleteConflict { .. } => {
                Self::new(StatusCode::CONFLICT, "DeleteConflictException", message)
            }
            FleetError::CertificateState { .. } => Self::new(
                StatusCode::NOT_ACCEPTABLE,
                "CertificateStateException",
                message,
            ),
            FleetError::Name(_)
            | FleetError::Invalid(_)
            | FleetError::Csr(_)
            | FleetError::Key(_)
            | FleetError::Template(_) => Self::invalid(message),
            FleetError::Foreign(ForeignError::Verification(_)) => Self::new(
                StatusCode::BAD_REQUEST,
                "RegistrationCodeValidationException",
                message,
            ),
            FleetError::Foreign(_) => Self::new(
                StatusCode::BAD_REQUEST,
                "CertificateValidationException",
                message,
            ),
            FleetError::InvariantBroken { .. } => {
                Self::new(StatusCode::CONFLICT, "InvariantBrokenException", message)
            }
            FleetError::Query(_) => {
                Self::new(StatusCode::BAD_REQUEST, "InvalidQueryException", message)
            }
            FleetError::Password => {
                Self::new(StatusCode::UNAUTHORIZED, "UnauthorizedException", message)
            }
            FleetError::Limit { .. } => {
                Self::new(StatusCode::GONE, "LimitExceededException", message)
            }
            FleetError::MalformedPolicy(_) => {
                Self::new(StatusCode::BAD_REQUEST, "MalformedPolicyException", message)
            }
            FleetError::Store(error) => error.into(),
            FleetError::Authority(error) => error.into(),
            FleetError::Thread(_) => Self::internal(&message),
        }
    }
}

impl From<CaError> for ApiError {
    fn from(error: CaError) -> Self {
        let message = error.to_string();
        match error {
            CaError::Invalid { .. }
            | CaError::AuthorityKey { .. }
            | CaError::BlockedKey { .. }
            | CaError::OutsideIssuer { .. } => Self::invalid(message),
            CaError::RootOffline | CaError::IssuerRevoked { .. } => Self::new(
                StatusCode::CONFLICT,
                "InvalidStateTransitionException",
                message,
            ),
            // A token that is away is the operator's to bring back.
            CaError::Custody(_) => Self::unavailable(&message),
            _ => Self::internal(&message),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            // The operator's to mend, and then to be asked again.
            StoreError::Full { .. } => Self::unavailable(&error.to_string()),
            error => Self::internal(&error),
        }
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let message = error.to_string();
        match error {
            ControlError::Exists(_) => Self::new(
                StatusCode::CONFLICT,
                "ResourceAlreadyExistsException",
                message,
            ),
            ControlError::Unknown(_) => Self::not_found(message),
            ControlError::LastAdmin(_) => {
                Self::new(StatusCode::CONFLICT, "DeleteConflictException", message)
            }
            ControlError::TooMany(_) => {
                Self::new(StatusCode::GONE, "LimitExceededException", message)
            }
            ControlError::Name(_) | ControlError::Role(_) => Self::invalid(message),
            ControlError::Store(error) => error.into(),
            ControlError::Fleet(error) => error.into(),
            ControlError::Read { .. }
            | ControlError::Write { .. }
            | ControlError::Registry { .. }
            | ControlError::Authority(_)
            | ControlError::Random
            | ControlError::System { .. } => Self::internal(&message),
        }
    }
}

impl From<ota::Error> for ApiError {
    fn from(error: ota::Error) -> Self {
        let message = error.to_string();
        match error {
            ota::Error::NotFound { .. } => Self::not_found(message),
            ota::Error::AlreadyExists { .. } => Self::new(
                StatusCode::CONFLICT,
                "ResourceAlreadyExistsException",
                message,
            ),
            ota::Error::Version { .. } => {
                Self::new(StatusCode::CONFLICT, "VersionConflictException", message)
            }
            ota::Error::RolloutState { .. } | ota::Error::ExecutionState { .. } => Self::new(
                StatusCode::CONFLICT,
                "InvalidStateTransitionException",
                message,
            ),
            // The operator's to mend; a device asks again.
            ota::Error::Damaged { .. } => Self::unavailable(&message),
            ota::Error::Fleet(error) => error.into(),
            ota::Error::Store(error) => error.into(),
            // What broke off or was another body than the one signed is the sender's.
            ota::Error::Io { source, .. }
                if matches!(
                    source.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::FileTooLarge
                ) =>
            {
                Self::invalid(message)
            }
            ota::Error::Io { .. } => Self::internal(&message),
            // The rest says what is wrong with a name, a document, a package or a rollout.
            _ => Self::invalid(message),
        }
    }
}
