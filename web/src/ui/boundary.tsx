/** Keeps an error of one page from taking the whole workstation away. */
import { Component, type ReactNode } from "react";

interface Props {
  children: ReactNode;
  fallback: (error: Error, again: () => void) => ReactNode;
}

export class Boundary extends Component<Props, { error: Error | null }> {
  override state = { error: null as Error | null };

  static getDerivedStateFromError(error: Error) {
    return { error };
  }

  override render() {
    const { error } = this.state;
    return error === null
      ? this.props.children
      : this.props.fallback(error, () => this.setState({ error: null }));
  }
}
