//! A thing type as AWS writes it.

use fleet::{ThingType, ThingTypeName, ThingTypeProperties};
use serde::{Deserialize, Serialize};

use crate::answer::EpochSeconds;
use crate::arn::Arns;

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Properties {
    #[serde(skip_serializing_if = "Option::is_none")]
    thing_type_description: Option<String>,
    #[serde(default)]
    searchable_attributes: Vec<String>,
}

impl Properties {
    pub(super) fn read(given: Option<Self>) -> ThingTypeProperties {
        let given = given.unwrap_or_default();
        ThingTypeProperties {
            description: given.thing_type_description,
            searchable: given.searchable_attributes,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    thing_type_name: ThingTypeName,
    thing_type_arn: String,
    thing_type_properties: Properties,
    thing_type_metadata: Metadata,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    deprecated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    deprecation_date: Option<EpochSeconds>,
    creation_date: EpochSeconds,
}

impl Shown {
    pub(super) fn of(made: ThingType, arns: Arns<'_>) -> Self {
        Shown {
            thing_type_arn: arns.thing_type(&made.name),
            thing_type_name: made.name,
            thing_type_properties: Properties {
                thing_type_description: made.properties.description,
                searchable_attributes: made.properties.searchable,
            },
            thing_type_metadata: Metadata {
                deprecated: made.deprecated.is_some(),
                deprecation_date: made.deprecated.map(EpochSeconds),
                creation_date: EpochSeconds(made.created),
            },
        }
    }
}
