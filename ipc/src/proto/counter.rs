//! The service of the example in `docs/components.md`.

message! {
    /// Adds to the caller's count.
    pub struct Add {
        /// How much.
        pub amount: u32,
    }
}

message! {
    /// How far it was counted.
    pub struct Count {
        /// Everything that the caller added.
        pub total: u64,
    }
}

service! {
    /// Counts for each client.
    pub service Counter = "counter", version 1;
    /// Adds to the caller's count.
    1 => add: Add => Count;
}
