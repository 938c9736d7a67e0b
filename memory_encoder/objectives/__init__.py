"""The paper's equations: rectified flow (Eq. 1), frame retrieval (Eq. 3), the next section (Eq. 4)."""
