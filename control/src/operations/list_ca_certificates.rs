use fleet::authorities::AuthorityRecord;
use fleet::provisioning::TemplateName;
use fleet::{FleetError, LIST_LIMIT_ITEMS};
use http::Method;
use serde::Serialize;

use super::creation;
use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListCACertificates",
    method: Method::GET,
    path: "/cacertificates",
    least: Role::Viewer,
    query: &["pageSize", "marker", "templateName", "isAscendingOrder"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    certificate_arn: String,
    certificate_id: String,
    status: &'static str,
    creation_date: EpochSeconds,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    certificates: Vec<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let template: Option<TemplateName> = call.query("templateName")?;
    let scope = template.as_ref().map(TemplateName::as_str);
    let scope = scope.unwrap_or_default();
    let is_wanted = |record: &AuthorityRecord| {
        let named = record.registration.as_ref();
        template.is_none() || named.and_then(|r| r.template_name.as_ref()) == template.as_ref()
    };
    let (asked, page) = match creation::asked(call, scope)? {
        Some((ascending, asked)) => {
            let pages = |after: Option<&str>| {
                let mut page = rooms
                    .fleet
                    .registered_authorities(after, LIST_LIMIT_ITEMS)?;
                page.items.retain(is_wanted);
                Ok::<_, FleetError>(page)
            };
            let made = |record: &AuthorityRecord| (record.created, record.id.to_string());
            let page = creation::page(ascending, &asked, pages, made)?;
            (asked, page)
        }
        None => {
            let asked = call.page(scope)?;
            let page = rooms
                .fleet
                .registered_authorities(asked.after.as_deref(), asked.limit)?;
            (asked, page)
        }
    };
    let arns = call.arns(rooms);
    let wanted = page.items.into_iter().filter(is_wanted);
    let certificates = wanted.map(|record| Item {
        certificate_arn: arns.authority(&record.id),
        certificate_id: record.id.to_string(),
        status: record.status.as_str(),
        creation_date: EpochSeconds(record.created),
    });
    Answer::json(&Output {
        certificates: certificates.collect(),
        next_marker: asked.token(page.next),
    })
}
