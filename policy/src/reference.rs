//! A second engine for the tests, written as plainly as the language is defined.
