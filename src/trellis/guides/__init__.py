# SPDX-License-Identifier: Apache-2.0
"""What an answer can be held to: guides, checked and written as grammars that every engine reads.

A JSON schema, a regular expression or a grammar of a client's becomes the text of a grammar in
EBNF as xgrammar reads it, of which all engines' libraries hold the same. Whatever of it that
cannot be held exactly is rejected by name and place.
"""
