// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! The one way to declare a row.

/// A field of a row: its name, where it begins and how many bytes it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// As in the source.
    pub name: &'static str,
    /// Bytes from the beginning of the row.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// A type whose bytes cross the boundary between kernel and user space.
pub trait Row: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable + Copy {
    /// The type's name.
    const NAME: &'static str;
    /// The fields in order, for the golden file of the layout.
    const FIELDS: &'static [Field];
}

/// Declares a row: `repr(C)`, without padding, of the size that is written beside its name.
macro_rules! row {
    ($(#[$meta:meta])* pub struct $name:ident: $size:literal {
        $($(#[$field_meta:meta])* $visibility:vis $field:ident: $type:ty,)+
    }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
        )]
        pub struct $name { $($(#[$field_meta])* $visibility $field: $type,)+ }

        const _: () = assert!(size_of::<$name>() == $size);

        impl $crate::Row for $name {
            const NAME: &'static str = stringify!($name);
            const FIELDS: &'static [$crate::Field] = &[$($crate::Field {
                name: stringify!($field),
                offset: core::mem::offset_of!($name, $field),
                size: size_of::<$type>(),
            }),+];
        }
    };
}
