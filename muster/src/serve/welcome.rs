//! What the first start tells a newcomer.

use crate::shell::quote;
use control::Endpoints;
use std::path::Path;

/// The name of the program as it was called, so that the lines below work as printed.
fn program() -> String {
    std::env::args()
        .next()
        .unwrap_or_else(|| "muster".to_owned())
}

pub(super) fn text(data: &Path, endpoints: &Endpoints) -> String {
    let (program, data) = (quote(&program()), data.display().to_string());
    let at = if data == "./muster-data" {
        String::new()
    } else {
        format!(" --data {}", quote(&data))
    };
    format!(
        "This is the first start on {data}: a certificate authority, an operator and a store have been made.\n\
         \n\
         Devices reach it at {mqtt} (MQTT over mutual TLS) and trust {data}/ca/root.crt.\n\
         Connect a first device, from another terminal in this directory:\n\
         \n  {program} device create lamp-1{at}\n\
         \n\
         and run the mosquitto_pub line it prints. Watch what it may do and why:\n\
         \n  {program} policy explain --device lamp-1 --action publish --topic dt/lamp-1/hello{at}\n\n",
        mqtt = endpoints.mqtt,
    )
}
