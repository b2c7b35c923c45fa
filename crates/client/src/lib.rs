//! Talks to any registry that speaks the OCI Distribution API, and reads images from local files.
//!
//! **Architecture invariant:** memory is bounded by a chunk per transfer, whatever the size of a blob; no transfer has
//! a total deadline, only idle ones.

mod error;
mod image;
mod registry;
mod slice;

pub use self::{
    error::{Error, Result},
    image::{Image, ImageBlob, ImageManifest},
    registry::{PulledManifest, PushStep, RegistryClient},
    slice::Slice,
};
