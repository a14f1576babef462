//! The two macros that declare a service.

/// Declares a type that travels in messages, with its largest encoded size.
///
/// Forms: `pub struct Name { pub field: Type, }` and `pub enum Name { Variant, }`.
macro_rules! message {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* pub $field:ident: $type:ty, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $type, )*
        }

        impl $crate::proto::wire::Wire for $name {
            const MAX: usize = 0 $( + <$type as $crate::proto::wire::Wire>::MAX )*;
        }
    };
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )+
        }

        impl $crate::proto::wire::Wire for $name {
            // The index of a variant, below 128.
            const MAX: usize = 1;
        }
    };
}

/// Declares a service: a protocol type, its methods, and the trait of its servers.
///
/// Each line `number => function: Request => Reply;` is a method. Numbers are never reused. With
/// `shared Type, order N` every session comes with `2^N` pages of memory that hold a `Type`.
macro_rules! service {
    (@shared) => {
        type Shared = ();
        const SHARED_ORDER: Option<u8> = None;
    };
    (@shared $shared:ty, $order:expr) => {
        type Shared = $shared;
        const SHARED_ORDER: Option<u8> = {
            assert!(core::mem::size_of::<$shared>() <= 4096 << $order);
            Some($order)
        };
    };
    (
        $(#[$meta:meta])*
        pub service $name:ident = $text:literal, version $version:literal
            $(, shared $shared:ty, order $order:expr)?;
        $( $(#[$method_meta:meta])* $number:literal => $function:ident: $request:ty => $reply:ty; )+
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name;

        impl $crate::proto::service::Protocol for $name {
            const NAME: &'static str = $text;
            const VERSION: u8 = $version;

            service!(@shared $($shared, $order)?);
        }

        $(
            impl $crate::proto::service::Method for $request {
                type Protocol = $name;
                type Reply = $reply;
                const NUMBER: u8 = $number;
            }

            const _: () = assert!(
                <$request as $crate::proto::wire::Wire>::MAX <= $crate::proto::wire::MAX_BODY
                    && <$reply as $crate::proto::wire::Wire>::MAX <= $crate::proto::wire::MAX_BODY,
                "message does not fit into a UTCB"
            );
        )+

        /// What a server implements: a function for each method. `call` says whose session the
        /// call came in on and carries capabilities in both directions.
        pub trait Server {
            $(
                $(#[$method_meta])*
                ///
                /// # Errors
                /// What the client is told instead of a reply.
                fn $function(
                    &self,
                    call: &mut $crate::proto::service::Incoming,
                    request: $request,
                ) -> Result<$reply, $crate::proto::service::Fault>;
            )+
        }

        impl<S: Server> $crate::proto::service::Dispatch<$name> for S {
            fn dispatch(
                &self,
                call: &mut $crate::proto::service::Incoming,
                number: u8,
                body: &$crate::proto::wire::Body,
                buffer: &mut impl $crate::proto::service::Buffer,
            ) -> Result<usize, $crate::proto::service::Fault> {
                match number {
                    $(
                        $number => {
                            let request = body
                                .decode::<$request>()
                                .map_err(|_| $crate::proto::service::Fault::Malformed)?;
                            let reply = self.$function(call, request)?;
                            $crate::proto::service::put_reply(&reply, buffer)
                        }
                    )+
                    _ => Err($crate::proto::service::Fault::Method),
                }
            }
        }
    };
}
