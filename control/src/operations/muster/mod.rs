//! What AWS has no word for, under `/muster/v1`.

mod add_package;
mod attest_device;
mod change_allow_list;
mod change_certificates;
mod claim;
mod command_rollout;
mod create_claim;
mod create_device;
mod create_operator;
mod delete_device;
mod delete_invariant;
mod delete_network;
mod delete_operator;
mod device;
mod enrolled;
mod explain_policy;
mod export_root_key;
mod finish_upload;
mod import_device;
mod list_allow_list;
mod list_audit_checks;
mod list_claims;
mod list_devices;
mod list_invariants;
mod list_networks;
mod list_operators;
mod list_packages;
mod list_rollouts;
mod make_enrolment_password;
mod moment;
mod note_violation;
mod prove_policies;
mod quarantine_device;
mod replace_device;
mod request_issuing;
mod revoke_device;
mod root_list;
mod rotate_issuing;
mod rotate_operator;
mod run_audit;
mod running;
mod set_invariant;
mod set_network;
mod set_trust;
mod show_authority;
mod show_claim;
mod show_denial;
mod show_device;
mod show_log;
mod show_package;
mod show_registration_report;
mod show_repository;
mod show_rollout;
mod show_trust;
mod show_upload;
mod simulate_policy;
mod start_rollout;
mod status;
mod succeed_root;
mod suggest_policy;
mod take_root_offline;
mod targets;
mod update_policy;
mod update_template;
mod upload_part;
mod withdraw_enrolment_password;
mod words;

use crate::operation::Operation;

pub(super) static OPERATIONS: &[Operation] = &[
    attest_device::OPERATION,
    change_allow_list::OPERATION,
    change_certificates::OPERATION,
    create_claim::OPERATION,
    list_allow_list::OPERATION,
    list_claims::OPERATION,
    show_claim::OPERATION,
    update_template::OPERATION,
    add_package::OPERATION,
    finish_upload::OPERATION,
    show_upload::OPERATION,
    upload_part::OPERATION,
    command_rollout::OPERATION,
    create_device::OPERATION,
    create_operator::OPERATION,
    delete_device::OPERATION,
    delete_invariant::OPERATION,
    delete_network::OPERATION,
    delete_operator::OPERATION,
    explain_policy::OPERATION,
    export_root_key::OPERATION,
    import_device::OPERATION,
    list_audit_checks::OPERATION,
    list_devices::OPERATION,
    list_invariants::OPERATION,
    list_networks::OPERATION,
    list_operators::OPERATION,
    list_packages::OPERATION,
    list_rollouts::OPERATION,
    prove_policies::OPERATION,
    quarantine_device::OPERATION,
    make_enrolment_password::OPERATION,
    withdraw_enrolment_password::OPERATION,
    note_violation::OPERATION,
    replace_device::OPERATION,
    request_issuing::OPERATION,
    revoke_device::OPERATION,
    rotate_issuing::OPERATION,
    root_list::REVOKE,
    root_list::TAKE,
    rotate_operator::OPERATION,
    run_audit::OPERATION,
    running::COUNT,
    running::LIST,
    set_invariant::OPERATION,
    set_network::OPERATION,
    set_trust::DELEGATED,
    set_trust::OPERATION,
    show_authority::OPERATION,
    show_denial::OPERATION,
    show_device::OPERATION,
    show_log::OPERATION,
    show_log::VERIFY,
    show_package::OPERATION,
    show_registration_report::OPERATION,
    show_repository::FILE,
    show_repository::OPERATION,
    show_rollout::OPERATION,
    show_trust::OPERATION,
    simulate_policy::OPERATION,
    start_rollout::OPERATION,
    status::OPERATION,
    succeed_root::OPERATION,
    succeed_root::REQUEST,
    succeed_root::RETIRE,
    suggest_policy::OPERATION,
    take_root_offline::OPERATION,
    update_policy::OPERATION,
];
