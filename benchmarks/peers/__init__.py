"""The five operations of heroes, written for other frameworks as their own documentation would have it."""
