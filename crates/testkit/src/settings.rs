//! How much a slow test does, as its script says: numbers from the environment.

/// Holds the seed of a run that is to be repeated.
pub const SEED_VARIABLE: &str = "TWINPORT_TEST_SEED";

/// A number from the environment.
///
/// # Panics
/// When the variable holds anything else: a typing error must not make a suite smaller.
#[must_use]
pub fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")),
        Err(_) => otherwise,
    }
}

/// The seed of this run: the one asked for, else a new one. Whoever takes it prints it.
#[must_use]
pub fn seed() -> u64 {
    number(SEED_VARIABLE, rand::random::<u32>().into())
}
