"""The edge to Airflow: connections, contexts, forms."""
