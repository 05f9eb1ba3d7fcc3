//! A client of registries: pushes images, and finds out the arguments of `pullImage`.
//! Stage: registry. Input: [`Artifact`](crate::oci::Artifact) or an image's name.

mod address;
mod answer;
mod authorization;
mod body_stream;
mod challenge;
mod connect;
mod credentials;
mod error;
mod exchange;
mod no_answer;
mod origin;
mod prefetch;
mod push;
mod referrers;
mod registries_conf;
mod repository;
mod retry;
mod reuse;
mod scopes;
mod signing;
mod token;
mod upload;
mod work;

pub use connect::{CertificateError, Certificates, Proxies};
pub use credentials::{AuthSource, Credentials};
pub use error::{ClientError, Missing};
pub use no_answer::NoAnswer;
pub use prefetch::{Prefetch, PrefetchError, Prefetched, Pulled, PulledAs, prefetch, pull};
pub use push::copy_to_registry;
pub use registries_conf::{DROP_INS, Location, RegistriesConf, RegistriesError};
pub use repository::ClientOptions;
pub use signing::{Signed, Verified, attach_to_image, verify_signatures};
