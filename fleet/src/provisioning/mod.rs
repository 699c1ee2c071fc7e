//! Fleet provisioning by claim: a device that has nothing but a shared claim certificate asks for a certificate of
//! its own and, with the token that proves it asked, becomes a thing by a template. What a claim may do is bounded
//! (template, uses, rate, sources, lifetime), a hook may refuse, and everything a device becomes is one batch.

mod breaker;
mod by_template;
mod claims;
mod desk;
mod hook;
mod lanes;
mod lines;
mod message;
mod name;
mod pending;
mod place;
mod rate;
mod register;
mod settle;
mod tasks;
mod templates;
mod working;

pub(crate) use breaker::Breaker;
pub use by_template::ByTemplate;
pub use claims::{CLAIM_LIFETIME_LIMIT, Claim, ClaimLimits, NewClaim, TRUSTED_USER_CLAIM_LIFETIME};
pub use desk::{ProvisioningAnswer, ProvisioningDesk, ProvisioningRequest, REQUESTS_LIMIT_ITEMS};
pub(crate) use hook::HookQuestion;
pub use hook::{ALLOW_LIST_CHANGE_LIMIT_ITEMS, HOOK_DEADLINE, Hook, HookCaller};
pub(crate) use lanes::{Lanes, Turn};
pub use message::Rejection;
pub use name::TemplateName;
pub use pending::{
    PENDING_PER_CLAIM_LIMIT_ITEMS, PendingCertificate, TOKEN_LIFETIME, WASTED_PER_PLACE_LIMIT_ITEMS,
};
pub use register::{Registered, ThingRegistration};
pub(crate) use settle::read_names;
pub use tasks::{NewTask, RegistrationDesk, RegistrationTask, TaskLine, TaskReport, TaskStatus};
pub use templates::{
    TEMPLATE_VERSIONS_LIMIT_ITEMS, TemplateChange, TemplateKind, TemplateRecord, TemplateVersion,
};
