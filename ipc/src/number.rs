//! One definition for an enum, its numbers, its names and the way back from a number.

/// Declares a numbered enum with `from_number`, `number`, `name` and the list `ALL`.
macro_rules! numbered {
    (
        $(#[$meta:meta])*
        pub enum $name:ident: $repr:ident {
            $( $(#[doc = $doc:literal])+ $variant:ident = $value:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr($repr)]
        pub enum $name {
            $( $(#[doc = $doc])+ $variant = $value, )+
        }

        impl $name {
            /// Every value with its name and description, in numeric order.
            pub const ALL: &'static [(Self, &'static str, &'static str)] = &[
                $( (Self::$variant, stringify!($variant), concat!($($doc, "\n"),+)), )+
            ];

            /// The value that a number stands for.
            #[inline]
            #[must_use]
            pub const fn from_number(number: $repr) -> Option<Self> {
                match number {
                    $( $value => Some(Self::$variant), )+
                    _ => None,
                }
            }

            /// The number in the ABI.
            #[inline]
            #[must_use]
            pub const fn number(self) -> $repr {
                self as $repr
            }

            /// The name as written in the source.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => stringify!($variant), )+
                }
            }
        }
    };
}
