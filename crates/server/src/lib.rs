//! One site as a process: `/v2`, the geo API, the admin API, health and metrics, over metadata, blobs and geo.
//!
//! **Architecture invariant:** no handler touches storage without a grant; failures become HTTP in `error` alone.

mod admin_api;
mod admission;
mod answer;
mod audit;
mod body;
mod config;
mod cross_origin;
mod data_directory;
mod error;
mod external;
mod first_start;
#[cfg(fuzzing)]
pub mod fuzzing;
mod geo_api;
mod grant;
mod health;
mod identity_providers;
mod listener;
mod new_password;
mod path;
mod pin;
mod policy;
mod query;
mod range_response;
mod registry;
mod replication;
mod serve;
mod site;
mod start_error;
mod telemetry;
mod token_service;
mod token_upkeep;
mod v2;

pub use self::{
    admin_api::types as admin,
    config::{
        AccountLimits, AccountsConfig, AuthConfig, BlobPlace, ClientAuth, Config, ConfigError, ConfigSource,
        DatabaseConfig, HtpasswdConfig, IssuerConfig, KeySource, LogFormat, MainAddress, Namespaces,
        ResponseHeaders, TlsConfig, TlsVersion, TokenAuthConfig, TrustedProxies,
    },
    data_directory::AdminSocket,
    external::ExternalAddress,
    geo_api::{GeoApiState, router as geo_router},
    grant::Grant,
    listener::{
        ClientCertificate, IncomingBody, Listener, ListenerLimits, Peer, Reloaded, Stalled, Tls, TlsError,
    },
    policy::Policy,
    registry::{Registry, RegistrySettings},
    serve::{Ready, Reread, ServeOptions, serve},
    start_error::StartError,
    telemetry::{LogControl, LogGuard, install_logging},
    v2::{RouteClass, V2Service, v2_service},
};
