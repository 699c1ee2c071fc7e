#![doc = "See [`fuzz::topics`]."]
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::topics(bytes));
