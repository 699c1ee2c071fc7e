//! The operations, one file each, and the one table that makes them reachable.

mod add_thing_to_thing_group;
mod aggregate;
mod associate_targets_with_job;
mod attach_policy;
mod attach_thing_principal;
mod attributes;
mod cancel_job;
mod cancel_job_execution;
mod create_certificate_from_csr;
mod create_dynamic_thing_group;
mod create_job;
mod create_keys_and_certificate;
mod create_policy;
mod create_policy_version;
mod create_provisioning_claim;
mod create_provisioning_template;
mod create_provisioning_template_version;
mod create_stream;
mod create_thing;
mod create_thing_group;
mod create_thing_type;
mod creation;
mod delete_ca_certificate;
mod delete_certificate;
mod delete_dynamic_thing_group;
mod delete_job;
mod delete_job_execution;
mod delete_policy;
mod delete_policy_version;
mod delete_provisioning_template;
mod delete_provisioning_template_version;
mod delete_registration_code;
mod delete_stream;
mod delete_thing;
mod delete_thing_group;
mod delete_thing_type;
mod deprecate_thing_type;
mod describe_ca_certificate;
mod describe_certificate;
mod describe_endpoint;
mod describe_event_configurations;
mod describe_index;
mod describe_job;
mod describe_job_execution;
mod describe_provisioning_template;
mod describe_provisioning_template_version;
mod describe_stream;
mod describe_thing;
mod describe_thing_group;
mod describe_thing_registration_task;
mod describe_thing_type;
mod detach_policy;
mod detach_thing_principal;
mod get_effective_policies;
mod get_job_document;
mod get_policy;
mod get_policy_version;
mod get_registration_code;
mod ids;
mod index;
mod indexing_configuration;
mod job_template;
mod list_attached_policies;
mod list_ca_certificates;
mod list_certificates;
mod list_certificates_by_ca;
mod list_indices;
mod list_job_executions_for_job;
mod list_job_executions_for_thing;
mod list_jobs;
mod list_policies;
mod list_policy_versions;
mod list_principal_things;
mod list_principal_things_v2;
mod list_provisioning_template_versions;
mod list_provisioning_templates;
mod list_streams;
mod list_targets_for_policy;
mod list_thing_groups;
mod list_thing_groups_for_thing;
mod list_thing_principals;
mod list_thing_principals_v2;
mod list_thing_registration_task_reports;
mod list_thing_registration_tasks;
mod list_thing_types;
mod list_things;
mod list_things_in_thing_group;
mod managed_job_template;
mod membership;
mod muster;
mod namespace;
mod ota_update;
mod principal_policies;
mod principal_type;
mod provisioning_template;
mod register_ca_certificate;
mod register_certificate;
mod register_certificate_without_ca;
mod register_thing;
mod registered_certificate;
mod registration_config;
mod remove_thing_from_thing_group;
mod search_index;
mod set_default_policy_version;
mod slice;
mod start_thing_registration_task;
mod stop_thing_registration_task;
mod tags;
mod test_authorization;
mod thing_connectivity_data;
mod thing_type;
mod update_ca_certificate;
mod update_certificate;
mod update_dynamic_thing_group;
mod update_event_configurations;
mod update_job;
mod update_provisioning_template;
mod update_stream;
mod update_thing;
mod update_thing_group;
mod update_thing_groups_for_thing;
mod update_thing_type;

use crate::operation::Operation;

/// Every operation of the API. What is not in here is not there.
pub(crate) fn all() -> impl Iterator<Item = &'static Operation> {
    AWS.iter().chain(muster::OPERATIONS)
}

/// AWS IoT's own.
static AWS: &[Operation] = &[
    describe_event_configurations::OPERATION,
    update_event_configurations::OPERATION,
    update_thing::OPERATION,
    update_thing_group::OPERATION,
    update_thing_groups_for_thing::OPERATION,
    create_thing_type::OPERATION,
    describe_thing_type::OPERATION,
    list_thing_types::OPERATION,
    update_thing_type::OPERATION,
    deprecate_thing_type::OPERATION,
    delete_thing_type::OPERATION,
    list_principal_things::OPERATION,
    list_principal_things_v2::OPERATION,
    list_thing_principals_v2::OPERATION,
    create_provisioning_claim::OPERATION,
    create_provisioning_template::OPERATION,
    create_provisioning_template_version::OPERATION,
    delete_provisioning_template::OPERATION,
    delete_provisioning_template_version::OPERATION,
    describe_provisioning_template::OPERATION,
    describe_provisioning_template_version::OPERATION,
    list_provisioning_template_versions::OPERATION,
    list_provisioning_templates::OPERATION,
    update_provisioning_template::OPERATION,
    add_thing_to_thing_group::OPERATION,
    attach_policy::OPERATION,
    attach_thing_principal::OPERATION,
    cancel_job::OPERATION,
    create_certificate_from_csr::OPERATION,
    create_job::OPERATION,
    create_keys_and_certificate::OPERATION,
    create_policy::OPERATION,
    create_policy_version::OPERATION,
    create_thing::OPERATION,
    create_thing_group::OPERATION,
    delete_certificate::OPERATION,
    delete_policy::OPERATION,
    delete_thing::OPERATION,
    delete_thing_group::OPERATION,
    describe_certificate::OPERATION,
    describe_endpoint::OPERATION,
    describe_job::OPERATION,
    describe_job_execution::OPERATION,
    describe_thing::OPERATION,
    describe_thing_group::OPERATION,
    detach_policy::OPERATION,
    detach_thing_principal::OPERATION,
    get_job_document::OPERATION,
    get_policy::OPERATION,
    list_attached_policies::OPERATION,
    list_certificates::OPERATION,
    list_job_executions_for_job::OPERATION,
    list_policies::OPERATION,
    list_thing_groups::OPERATION,
    list_thing_groups_for_thing::OPERATION,
    list_thing_principals::OPERATION,
    list_things::OPERATION,
    list_things_in_thing_group::OPERATION,
    remove_thing_from_thing_group::OPERATION,
    delete_policy_version::OPERATION,
    get_effective_policies::OPERATION,
    get_policy_version::OPERATION,
    list_policy_versions::OPERATION,
    list_targets_for_policy::OPERATION,
    principal_policies::ATTACH,
    principal_policies::DETACH,
    principal_policies::LIST,
    principal_policies::PRINCIPALS,
    set_default_policy_version::OPERATION,
    test_authorization::OPERATION,
    associate_targets_with_job::OPERATION,
    cancel_job_execution::OPERATION,
    delete_job::OPERATION,
    delete_job_execution::OPERATION,
    list_job_executions_for_thing::OPERATION,
    list_jobs::OPERATION,
    job_template::CREATE,
    job_template::DELETE,
    job_template::DESCRIBE,
    job_template::LIST,
    managed_job_template::DESCRIBE,
    managed_job_template::LIST,
    update_job::OPERATION,
    tags::LIST,
    tags::TAG,
    tags::UNTAG,
    create_stream::OPERATION,
    delete_stream::OPERATION,
    describe_stream::OPERATION,
    list_streams::OPERATION,
    ota_update::CREATE,
    ota_update::DELETE,
    ota_update::GET,
    ota_update::LIST,
    update_stream::OPERATION,
    update_certificate::OPERATION,
    register_ca_certificate::OPERATION,
    get_registration_code::OPERATION,
    delete_registration_code::OPERATION,
    describe_ca_certificate::OPERATION,
    list_ca_certificates::OPERATION,
    update_ca_certificate::OPERATION,
    delete_ca_certificate::OPERATION,
    register_certificate::OPERATION,
    register_certificate_without_ca::OPERATION,
    list_certificates_by_ca::OPERATION,
    register_thing::OPERATION,
    start_thing_registration_task::OPERATION,
    stop_thing_registration_task::OPERATION,
    describe_thing_registration_task::OPERATION,
    list_thing_registration_tasks::OPERATION,
    list_thing_registration_task_reports::OPERATION,
    search_index::OPERATION,
    describe_index::OPERATION,
    aggregate::STATISTICS,
    aggregate::CARDINALITY,
    aggregate::PERCENTILES,
    aggregate::BUCKETS,
    indexing_configuration::GET,
    indexing_configuration::UPDATE,
    thing_connectivity_data::OPERATION,
    list_indices::OPERATION,
    create_dynamic_thing_group::OPERATION,
    update_dynamic_thing_group::OPERATION,
    delete_dynamic_thing_group::OPERATION,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http::Method;

    use super::all;
    use crate::operation::Run;
    use crate::operators::Role;

    #[test]
    fn no_two_operations_share_a_name_or_a_route() {
        let (mut names, mut routes) = (HashSet::new(), HashSet::new());
        for operation in all() {
            assert!(names.insert(operation.name), "{}", operation.name);
            let route = (operation.method.clone(), operation.path);
            assert!(routes.insert(route), "{}", operation.name);
        }
    }

    /// A viewer changes nothing: what a viewer may do is read by GET, or is one of those that
    /// AWS's and our own shape make a POST of a question.
    #[test]
    fn who_may_only_look_cannot_change() {
        for operation in all().filter(|operation| operation.least == Role::Viewer) {
            let asks = [
                "ListAttachedPolicies",
                "ListTargetsForPolicy",
                "GetEffectivePolicies",
                "TestAuthorization",
                "ExplainPolicy",
                "ProvePolicies",
                "SimulatePolicy",
                "SuggestPolicy",
                "SearchIndex",
                "GetStatistics",
                "GetCardinality",
                "GetPercentiles",
                "GetBucketsAggregation",
                "GetThingConnectivityData",
            ]
            .contains(&operation.name);
            assert!(
                operation.method == Method::GET || asks,
                "{}",
                operation.name
            );
        }
    }

    #[test]
    fn reading_takes_no_body() {
        for operation in all().filter(|operation| operation.method == Method::GET) {
            assert!(matches!(operation.run, Run::Plain(_)), "{}", operation.name);
        }
    }
}
