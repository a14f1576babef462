//! Links the component; see the included file.

include!("../../sysroot/component.rs");
