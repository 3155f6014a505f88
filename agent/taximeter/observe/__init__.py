"""The faces of a node: everything here reads, nothing here measures or decides."""
