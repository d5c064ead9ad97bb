//! Randomness: `crypto.getRandomValues`, through the crate the cryptography uses as well.

/// Fills `out`, or says that the runtime refused.
pub fn fill(out: &mut [u8]) -> Result<(), getrandom::Error> {
    getrandom::fill(out)
}
