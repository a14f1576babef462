//! The operator's console: what is typed there, what it means, what is answered. No system calls:
//! what a [`session::Session`] acts upon is behind a trait.

pub mod command;
pub mod editor;
pub mod session;
pub mod table;
