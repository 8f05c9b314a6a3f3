"""The command: each verb parses, calls one function, prints what it returned."""
