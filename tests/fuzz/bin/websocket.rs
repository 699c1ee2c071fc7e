#![doc = "See [`fuzz::websocket`]."]
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::websocket(bytes));
