//! The storage branch: the content store's life and the one database writer.
