//! twinport-upkeep
