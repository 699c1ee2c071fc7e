#![doc = "See [`fuzz::shadow`]."]
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::shadow(bytes));
