//! What AWS has no word for, under `/muster/v1`.

mod create_device;
mod create_operator;
mod delete_device;
mod delete_operator;
mod device;
mod enrolled;
mod explain_policy;
mod list_devices;
mod list_operators;
mod replace_device;
mod revoke_device;
mod show_device;
mod update_policy;

use crate::operation::Operation;

pub(super) static OPERATIONS: &[Operation] = &[
    create_device::OPERATION,
    create_operator::OPERATION,
    delete_device::OPERATION,
    delete_operator::OPERATION,
    explain_policy::OPERATION,
    list_devices::OPERATION,
    list_operators::OPERATION,
    replace_device::OPERATION,
    revoke_device::OPERATION,
    show_device::OPERATION,
    update_policy::OPERATION,
];
