#![doc = "See [`fuzz::identity`]."]
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::identity(bytes));
