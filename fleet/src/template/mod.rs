//! Provisioning templates: a JSON document with parameters in, what a device is to be out. Pure: no registry, no
//! clock. A template is understood whole when it is read (unknown sections, functions, parameters and resources are
//! refused there); evaluating it can fail only by what the parameters say.

mod document;
mod error;
mod expression;
#[cfg(test)]
mod tests;

pub use error::TemplateError;

use crate::Attachment;
use document::Node;
use error::at;
use expression::{Declared, Expression, Scope};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Longest template body (AWS IoT: 10,240).
pub const BODY_LIMIT_BYTES: usize = 10_240;
/// Deepest nesting of functions and of objects in a policy document.
pub const DEPTH_LIMIT_LEVELS: usize = 24;
/// Longest text one expression may produce.
pub const TEXT_LIMIT_BYTES: usize = 32 * 1024;
/// Most parameters of one template, and of one request.
pub const PARAMETERS_LIMIT_ITEMS: usize = 100;
/// Longest value of a parameter (AWS IoT: 2,048).
pub const PARAMETER_LIMIT_BYTES: usize = 2_048;
/// The parameter that names the certificate a device has asked for.
pub const CERTIFICATE_ID: &str = "AWS::IoT::Certificate::Id";

/// A template that has been understood.
#[derive(Debug, Clone)]
pub struct Template {
    parameters: BTreeMap<String, Option<String>>,
    mappings: expression::Mappings,
    thing: ThingResource,
    certificate: CertificateResource,
    policies: Vec<PolicyResource>,
    configuration: BTreeMap<String, Expression>,
}

#[derive(Debug, Clone)]
struct ThingResource {
    name: Expression,
    attributes: BTreeMap<String, Expression>,
    type_name: Option<Expression>,
    groups: Vec<Expression>,
    existing: Option<Existing>,
}

#[derive(Debug, Clone)]
struct CertificateResource {
    source: SourceResource,
    status: Option<Expression>,
    principal_type: Option<Expression>,
    existing_status: Override,
}

#[derive(Debug, Clone)]
enum SourceResource {
    Id(Expression),
    Request(Expression),
    Pem {
        certificate: Expression,
        authority: Option<Expression>,
    },
}

#[derive(Debug, Clone)]
enum PolicyResource {
    Named(Expression),
    Text(Expression),
    Document(Node),
}

/// What a template does with a resource that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Override {
    /// It stays as it is.
    #[default]
    DoNothing,
    /// What the template says takes its place.
    Replace,
    /// The request is refused.
    Fail,
    /// Both together; of attributes the template's win.
    Merge,
}

/// What happens to a thing that is there already: stated in the template's `OverrideSettings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Existing {
    /// Its attributes.
    pub attributes: Override,
    /// Its type.
    pub type_name: Override,
    /// Its groups.
    pub groups: Override,
}

/// What a device is to be: a template with its parameters filled in. Names are not checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provision {
    /// The thing.
    pub thing: ThingPlan,
    /// The certificate.
    pub certificate: CertificatePlan,
    /// The policies attached to the certificate.
    pub policies: Vec<PolicyPlan>,
    /// What the device is told.
    pub configuration: BTreeMap<String, String>,
}

/// A thing as a template describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThingPlan {
    /// Its name.
    pub name: String,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Its type.
    pub type_name: Option<String>,
    /// Its groups.
    pub groups: Vec<String>,
    /// What happens if it exists; `None` where the template does not say.
    pub existing: Option<Existing>,
}

/// A certificate as a template describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificatePlan {
    /// Which one.
    pub source: CertificateSource,
    /// Whether it is to be ACTIVE (else INACTIVE).
    pub active: bool,
    /// How it is attached to the thing.
    pub attachment: Attachment,
    /// What happens to the status of one that has left PENDING_ACTIVATION.
    pub existing_status: Override,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// It is registered under this id.
    Id(String),
    /// It is made for the key of this CSR (PEM).
    Request(String),
    /// It was made elsewhere.
    Pem {
        /// The certificate, PEM.
        certificate: String,
        /// The certificate of the authority that signed it, PEM.
        authority: Option<String>,
    },
}

/// A policy as a template describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyPlan {
    /// One that exists.
    Named(String),
    /// One of this document, under a name that follows from it.
    Document(String),
}

impl Template {
    /// Whether it brings policies of its own, where others name policies that exist: who uses it as it is makes policies.
    #[must_use]
    pub fn makes_policies(&self) -> bool {
        let policies = &mut self.policies.iter();
        policies.any(|policy| !matches!(policy, PolicyResource::Named(_)))
    }

    /// Reads a template's body.
    ///
    /// # Errors
    /// [`TemplateError`] with the place in the document.
    pub fn parse(body: &str) -> Result<Self, TemplateError> {
        if body.len() > BODY_LIMIT_BYTES {
            return Err(at(
                "",
                format!(
                    "a template has at most {BODY_LIMIT_BYTES} bytes; this one has {}",
                    body.len()
                ),
            ));
        }
        let value: Value =
            serde_json::from_str(body).map_err(|error| at("", format!("not JSON: {error}")))?;
        let top = object(&value, "")?;
        only(
            top,
            "",
            &[
                "Parameters",
                "Mappings",
                "Resources",
                "DeviceConfiguration",
                "Version",
                "Description",
            ],
        )?;
        let parameters = parameters(top.get("Parameters"))?;
        let mappings = expression::mappings(top.get("Mappings"))?;
        let declared = Declared {
            parameters: &parameters,
            mappings: &mappings,
        };
        let resources = top
            .get("Resources")
            .ok_or_else(|| at("Resources", "is missing"))?;
        let (mut thing, mut certificate, mut policies) = (None, None, Vec::new());
        for (name, resource) in object(resources, "Resources")? {
            let place = format!("Resources.{name}");
            let resource = object(resource, &place)?;
            only(
                resource,
                &place,
                &["Type", "Properties", "OverrideSettings"],
            )?;
            let kind = resource.get("Type").and_then(Value::as_str);
            let second = |what: &str| {
                at(
                    &place,
                    format!("a template describes one {what}; this is the second"),
                )
            };
            match kind {
                Some("AWS::IoT::Thing") if thing.is_some() => return Err(second("thing")),
                Some("AWS::IoT::Thing") => {
                    thing = Some(thing_resource(resource, &place, &declared)?)
                }
                Some("AWS::IoT::Certificate") if certificate.is_some() => {
                    return Err(second("certificate"));
                }
                Some("AWS::IoT::Certificate") => {
                    certificate = Some(certificate_resource(resource, &place, &declared)?);
                }
                Some("AWS::IoT::Policy") => {
                    policies.push(policy_resource(resource, &place, &declared)?)
                }
                _ => {
                    return Err(at(
                        &format!("{place}.Type"),
                        "is AWS::IoT::Thing, AWS::IoT::Certificate or AWS::IoT::Policy",
                    ));
                }
            }
        }
        let mut configuration = BTreeMap::new();
        if let Some(section) = top.get("DeviceConfiguration") {
            for (key, value) in object(section, "DeviceConfiguration")? {
                let place = format!("DeviceConfiguration.{key}");
                configuration.insert(key.clone(), Expression::parse(value, &place, &declared, 0)?);
            }
        }
        Ok(Template {
            thing: thing.ok_or_else(|| at("Resources", "needs an AWS::IoT::Thing"))?,
            certificate: certificate
                .ok_or_else(|| at("Resources", "needs an AWS::IoT::Certificate"))?,
            policies,
            configuration,
            parameters,
            mappings,
        })
    }

    /// The parameters it declares, and which of them have a default.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, bool)> {
        self.parameters
            .iter()
            .map(|(name, default)| (name.as_str(), default.is_some()))
    }

    /// Whether the certificate is one that the device has asked for itself, as fleet provisioning wants it.
    pub fn takes_certificate_by_id(&self) -> bool {
        matches!(self.certificate.source, SourceResource::Id(_))
    }

    /// Fills the parameters in.
    ///
    /// # Errors
    /// [`TemplateError`] for a parameter that is missing, not declared or too long, an index or key that is not
    /// there, a text that grows too long.
    pub fn evaluate(&self, given: &BTreeMap<String, String>) -> Result<Provision, TemplateError> {
        let parameters = self.filled(given)?;
        let scope = Scope {
            parameters: &parameters,
            mappings: &self.mappings,
            plain: false,
        };
        let text = |expression: &Expression, place: &str| expression.text(&scope, place);
        let mut attributes = BTreeMap::new();
        for (name, value) in &self.thing.attributes {
            attributes.insert(
                name.clone(),
                text(value, &format!("thing.AttributePayload.{name}"))?,
            );
        }
        let groups: BTreeSet<String> = (self.thing.groups.iter())
            .map(|group| text(group, "thing.ThingGroups"))
            .collect::<Result<_, _>>()?;
        let type_name = self.thing.type_name.as_ref();
        let thing = ThingPlan {
            name: text(&self.thing.name, "thing.ThingName")?,
            attributes,
            type_name: type_name
                .map(|name| text(name, "thing.ThingTypeName"))
                .transpose()?,
            groups: groups.into_iter().collect(),
            existing: self.thing.existing,
        };
        let status = self.certificate.status.as_ref();
        let status = status
            .map(|status| text(status, "certificate.Status"))
            .transpose()?;
        let active = match status.as_deref().map(str::to_ascii_uppercase).as_deref() {
            None | Some("ACTIVE") => true,
            Some("INACTIVE") => false,
            Some(_) => return Err(at("certificate.Status", "is ACTIVE or INACTIVE")),
        };
        let principal_type = self.certificate.principal_type.as_ref();
        let principal_type = principal_type
            .map(|text_of| text(text_of, "certificate.ThingPrincipalType"))
            .transpose()?;
        let attachment = match principal_type.as_deref() {
            None | Some("EXCLUSIVE_THING") => Attachment::Exclusive,
            Some("NON_EXCLUSIVE_THING") => Attachment::NonExclusive,
            Some(_) => {
                let words = "is EXCLUSIVE_THING or NON_EXCLUSIVE_THING";
                return Err(at("certificate.ThingPrincipalType", words));
            }
        };
        let source = match &self.certificate.source {
            SourceResource::Id(id) => CertificateSource::Id(text(id, "certificate.CertificateId")?),
            SourceResource::Request(csr) => {
                CertificateSource::Request(text(csr, "certificate.CertificateSigningRequest")?)
            }
            SourceResource::Pem {
                certificate,
                authority,
            } => CertificateSource::Pem {
                certificate: text(certificate, "certificate.CertificatePem")?,
                authority: (authority.as_ref())
                    .map(|pem| text(pem, "certificate.CACertificatePem"))
                    .transpose()?,
            },
        };
        let mut policies = Vec::with_capacity(self.policies.len());
        for policy in &self.policies {
            // A device must not write a wildcard or a quote into a policy.
            let plain = Scope {
                plain: true,
                ..scope
            };
            policies.push(match policy {
                PolicyResource::Named(name) => PolicyPlan::Named(text(name, "policy.PolicyName")?),
                PolicyResource::Text(document) => {
                    PolicyPlan::Document(document.text(&plain, "policy.PolicyDocument")?)
                }
                PolicyResource::Document(node) => {
                    PolicyPlan::Document(node.value(&plain, "policy.PolicyDocument")?.to_string())
                }
            });
        }
        let mut configuration = BTreeMap::new();
        for (key, value) in &self.configuration {
            let place = format!("DeviceConfiguration.{key}");
            configuration.insert(key.clone(), text(value, &place)?);
        }
        Ok(Provision {
            thing,
            certificate: CertificatePlan {
                source,
                active,
                attachment,
                existing_status: self.certificate.existing_status,
            },
            policies,
            configuration,
        })
    }

    /// Every declared parameter with its value. What a request says beyond that is refused: it would be a typing
    /// error that goes unnoticed.
    fn filled(
        &self,
        given: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, TemplateError> {
        let shown = |name: &str| name.chars().take(80).collect::<String>();
        let mut filled = BTreeMap::new();
        for (name, value) in given {
            if !self.parameters.contains_key(name) && name != CERTIFICATE_ID {
                return Err(at(
                    &format!("parameter {:?}", shown(name)),
                    "is not one of this template",
                ));
            }
            if value.len() > PARAMETER_LIMIT_BYTES {
                return Err(at(
                    &format!("parameter {}", shown(name)),
                    format!("has more than {PARAMETER_LIMIT_BYTES} bytes"),
                ));
            }
            filled.insert(name.clone(), value.clone());
        }
        for (name, default) in &self.parameters {
            match (filled.contains_key(name), default) {
                (true, _) => {}
                (false, Some(default)) => {
                    filled.insert(name.clone(), default.clone());
                }
                (false, None) => return Err(at(&format!("parameter {name}"), "is missing")),
            }
        }
        Ok(filled)
    }
}

fn object<'v>(value: &'v Value, place: &str) -> Result<&'v Map<String, Value>, TemplateError> {
    value
        .as_object()
        .ok_or_else(|| at(place, "is a JSON object"))
}

fn only(fields: &Map<String, Value>, place: &str, known: &[&str]) -> Result<(), TemplateError> {
    match fields.keys().find(|field| !known.contains(&field.as_str())) {
        None => Ok(()),
        Some(field) => {
            let shown: String = field.chars().take(80).collect();
            Err(at(
                place,
                format!("has no {shown:?}; there are {}", known.join(", ")),
            ))
        }
    }
}

fn parameters(section: Option<&Value>) -> Result<BTreeMap<String, Option<String>>, TemplateError> {
    let mut parameters = BTreeMap::new();
    let Some(section) = section else {
        return Ok(parameters);
    };
    for (name, parameter) in object(section, "Parameters")? {
        let place = format!("Parameters.{name}");
        let fields = object(parameter, &place)?;
        only(fields, &place, &["Type", "Default"])?;
        if fields.get("Type").and_then(Value::as_str) != Some("String") {
            return Err(at(&format!("{place}.Type"), "is String"));
        }
        let default = match fields.get("Default") {
            None => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => return Err(at(&format!("{place}.Default"), "is a string")),
        };
        parameters.insert(name.clone(), default);
    }
    if parameters.len() > PARAMETERS_LIMIT_ITEMS {
        return Err(at(
            "Parameters",
            format!("are at most {PARAMETERS_LIMIT_ITEMS}"),
        ));
    }
    Ok(parameters)
}

fn properties<'v>(
    resource: &'v Map<String, Value>,
    place: &str,
    known: &[&str],
) -> Result<&'v Map<String, Value>, TemplateError> {
    let place = format!("{place}.Properties");
    let fields = resource
        .get("Properties")
        .ok_or_else(|| at(&place, "is missing"))?;
    let fields = object(fields, &place)?;
    for undone in ["BillingGroup", "PackageVersions"] {
        if fields.contains_key(undone) {
            return Err(at(&format!("{place}.{undone}"), "is not supported yet"));
        }
    }
    only(fields, &place, known)?;
    Ok(fields)
}

fn thing_resource(
    resource: &Map<String, Value>,
    place: &str,
    declared: &Declared<'_>,
) -> Result<ThingResource, TemplateError> {
    let known = [
        "ThingName",
        "AttributePayload",
        "ThingTypeName",
        "ThingGroups",
    ];
    let fields = properties(resource, place, &known)?;
    let within = |field: &str| format!("{place}.Properties.{field}");
    let name = fields
        .get("ThingName")
        .ok_or_else(|| at(&within("ThingName"), "is missing"))?;
    let name = Expression::parse(name, &within("ThingName"), declared, 0)?;
    let mut attributes = BTreeMap::new();
    if let Some(payload) = fields.get("AttributePayload") {
        for (key, value) in object(payload, &within("AttributePayload"))? {
            let place = within(&format!("AttributePayload.{key}"));
            attributes.insert(key.clone(), Expression::parse(value, &place, declared, 0)?);
        }
    }
    let type_name = fields
        .get("ThingTypeName")
        .map(|value| Expression::parse(value, &within("ThingTypeName"), declared, 0))
        .transpose()?;
    let groups = match fields.get("ThingGroups") {
        None => Vec::new(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| Expression::parse(item, &within("ThingGroups"), declared, 0))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(at(&within("ThingGroups"), "is a list of names")),
    };
    let existing = match resource.get("OverrideSettings") {
        None => None,
        Some(settings) => {
            let place = format!("{place}.OverrideSettings");
            let settings = object(settings, &place)?;
            only(
                settings,
                &place,
                &["AttributePayload", "ThingTypeName", "ThingGroups"],
            )?;
            let read = |field: &str, merges: bool| {
                setting(settings.get(field), &format!("{place}.{field}"), merges)
            };
            Some(Existing {
                attributes: read("AttributePayload", true)?,
                type_name: read("ThingTypeName", false)?,
                groups: read("ThingGroups", true)?,
            })
        }
    };
    Ok(ThingResource {
        name,
        attributes,
        type_name,
        groups,
        existing,
    })
}

fn setting(value: Option<&Value>, place: &str, merges: bool) -> Result<Override, TemplateError> {
    match value.map(Value::as_str) {
        None => Ok(Override::DoNothing),
        Some(Some("DO_NOTHING")) => Ok(Override::DoNothing),
        Some(Some("REPLACE")) => Ok(Override::Replace),
        Some(Some("FAIL")) => Ok(Override::Fail),
        Some(Some("MERGE")) if merges => Ok(Override::Merge),
        Some(_) if merges => Err(at(place, "is DO_NOTHING, REPLACE, MERGE or FAIL")),
        Some(_) => Err(at(place, "is DO_NOTHING, REPLACE or FAIL")),
    }
}

fn certificate_resource(
    resource: &Map<String, Value>,
    place: &str,
    declared: &Declared<'_>,
) -> Result<CertificateResource, TemplateError> {
    let known = [
        "CertificateId",
        "CertificateID",
        "CertificateSigningRequest",
        "CertificatePem",
        "CACertificatePem",
        "Status",
        "ThingPrincipalType",
    ];
    let fields = properties(resource, place, &known)?;
    let read = |field: &str| {
        fields
            .get(field)
            .map(|value| {
                Expression::parse(value, &format!("{place}.Properties.{field}"), declared, 0)
            })
            .transpose()
    };
    let id = match read("CertificateId")? {
        Some(id) => Some(id),
        None => read("CertificateID")?,
    };
    let (csr, certificate, authority) = (
        read("CertificateSigningRequest")?,
        read("CertificatePem")?,
        read("CACertificatePem")?,
    );
    let source = match (id, csr, certificate) {
        (Some(id), None, None) => SourceResource::Id(id),
        (None, Some(csr), None) => SourceResource::Request(csr),
        (None, None, Some(certificate)) => SourceResource::Pem {
            certificate,
            authority,
        },
        _ => {
            return Err(at(
                &format!("{place}.Properties"),
                "names one of CertificateId, CertificateSigningRequest and CertificatePem",
            ));
        }
    };
    let existing_status = match resource.get("OverrideSettings") {
        None => Override::DoNothing,
        Some(settings) => {
            let place = format!("{place}.OverrideSettings");
            let settings = object(settings, &place)?;
            only(settings, &place, &["Status"])?;
            setting(settings.get("Status"), &format!("{place}.Status"), false)?
        }
    };
    Ok(CertificateResource {
        source,
        status: read("Status")?,
        principal_type: read("ThingPrincipalType")?,
        existing_status,
    })
}

fn policy_resource(
    resource: &Map<String, Value>,
    place: &str,
    declared: &Declared<'_>,
) -> Result<PolicyResource, TemplateError> {
    if resource.contains_key("OverrideSettings") {
        return Err(at(place, "a policy takes no OverrideSettings"));
    }
    let fields = properties(resource, place, &["PolicyName", "PolicyDocument"])?;
    let document_place = format!("{place}.Properties.PolicyDocument");
    match (fields.get("PolicyName"), fields.get("PolicyDocument")) {
        (Some(name), None) => {
            let place = format!("{place}.Properties.PolicyName");
            Expression::parse(name, &place, declared, 0).map(PolicyResource::Named)
        }
        (None, Some(Value::Object(fields))) if !expression::is_function(fields) => {
            let document = fields
                .get("Statement")
                .map(|_| Value::Object(fields.clone()));
            let document = document.ok_or_else(|| at(&document_place, "has no Statement"))?;
            Node::parse(&document, &document_place, declared, 0).map(PolicyResource::Document)
        }
        (None, Some(text)) => {
            Expression::parse(text, &document_place, declared, 0).map(PolicyResource::Text)
        }
        _ => Err(at(
            &format!("{place}.Properties"),
            "names one of PolicyName and PolicyDocument",
        )),
    }
}
