//! `Debug` of types that hold what no log may show.

/// Implements `Debug` for types that hold personal data or secrets: it shows their names, and of their fields only those
/// that are listed, so that no log and no panic shows more.
///
/// ```
/// struct Client {
///     id: u32,
///     email: String,
/// }
/// usher_runtime::hidden_debug!(Client { id });
///
/// let client = Client { id: 7, email: "ann@example.org".to_owned() };
/// assert_eq!(format!("{client:?}"), "Client { id: 7, .. }");
/// # let _ = client.email;
/// ```
#[macro_export]
macro_rules! hidden_debug {
    ($($type:ident $(<$lifetime:lifetime>)? $({ $($field:ident),+ })?),+ $(,)?) => {$(
        impl ::std::fmt::Debug for $type $(<$lifetime>)? {
            fn fmt(&self, formatter: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                formatter
                    .debug_struct(stringify!($type))
                    $($(.field(stringify!($field), &self.$field))+)?
                    .finish_non_exhaustive()
            }
        }
    )+};
}
